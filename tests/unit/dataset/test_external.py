"""Files outside the workspace: on disks and in stores, found as they are now."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.dataset import external
from curate.errors import UserError

Put = Callable[[str, bytes], str]
"""Writes a file of a folder; the URL of it."""


@pytest.fixture(params=["path", "relative", "file://", "memory://"])
def put(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    name = uuid.uuid4().hex
    monkeypatch.chdir(tmp_path)
    roots = {
        "path": str(tmp_path / name),
        "relative": name,
        "file://": f"file://{tmp_path / name}",
        "memory://": f"memory://{name}",
    }
    root = roots[request.param]

    def write(path: str, data: bytes) -> str:
        url = f"{root}/{path}"
        with fsspec.open(url, "wb", auto_mkdir=True) as stream:
            stream.write(data)
        return url

    return write


def names(urls: list[str]) -> list[str]:
    return [url.rpartition("/")[2] for url in urls]


def test_a_file_is_read_and_told_from_another(put: Put) -> None:
    url = put("a.bin", b"one")
    assert external.digest(url, "here") == hashlib.blake2b(b"one", digest_size=16).hexdigest()
    assert external.read(url, "here") == b"one"
    digest = external.digest(url, "here")
    external.check_digest(url, "here", digest)
    assert external.read(url, "here", digest) == b"one"
    with external.open_file(url) as stream:
        assert stream.read() == b"one"
    put("a.bin", b"two")
    with pytest.raises(UserError, match=r"^here: .*a\.bin has changed, or is another file on this worker"):
        external.check_digest(url, "here", digest)
    with pytest.raises(UserError, match=r"^here: .*a\.bin has changed"):
        external.read(url, "here", digest)


def test_what_is_not_there(put: Put) -> None:
    here = put("a.bin", b"one")
    gone, folder = here.replace("a.bin", "b.bin"), here.rpartition("/")[0]
    for ask in (external.digest, external.read):
        with pytest.raises(UserError, match=r"^here: .*b\.bin: no such file"):
            ask(gone, "here")
        with pytest.raises(UserError, match=r"^here: .*is a folder, not a file"):
            ask(folder, "here")
    with pytest.raises(FileNotFoundError), external.open_file(gone):
        pass
    assert external.list_folder(here, "here") is None
    assert external.list_folder(gone, "here") is None
    assert external.find_files(gone, "here", ".bin") == []
    assert external.local_path(gone) is None
    assert external.local_path(folder) is None
    for ask in (external.list_folder, external.absolute, external.digest):
        with pytest.raises(UserError, match=r"^here: cannot open 'nothing://x'"):
            ask("nothing://x", "here")


def test_files_of_a_folder_a_glob_and_alone(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.parquet", "a.parquet", "deep/er/c.parquet", "notes.txt"):
        url = put(name, b"x")
    folder = url.removesuffix("/notes.txt")
    found = external.find_files(folder, "here", ".parquet")
    assert names(found) == ["a.parquet", "b.parquet", "c.parquet"]
    assert names(external.find_files(f"{folder}/", "here", ".parquet")) == names(found)
    assert names(external.find_files(f"{folder}/*.parquet", "here", ".parquet")) == ["a.parquet", "b.parquet"]
    assert names(external.find_files(url, "here", ".parquet")) == ["notes.txt"]
    inside = external.list_folder(folder, "here")
    assert inside is not None
    assert list(inside) == ["a.parquet", "b.parquet", "deep", "notes.txt"]
    assert external.list_folder(inside["deep"], "here")
    monkeypatch.chdir("/")  # what was found is found from anywhere
    assert [external.read(each, "here") for each in [*found, inside["notes.txt"]]] == [b"x"] * 4


def test_what_was_written_just_now_is_there(put: Put) -> None:
    folder = put("a.bin", b"x").rpartition("/")[0]
    assert list(external.list_folder(folder, "here") or ()) == ["a.bin"]
    put("b.bin", b"x")
    put("c/d.bin", b"x")
    assert list(external.list_folder(folder, "here") or ()) == ["a.bin", "b.bin", "c"]
    assert names(external.find_files(folder, "here", ".bin")) == ["a.bin", "b.bin", "d.bin"]


def test_parquet(put: Put, tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", None]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    url = put("t.parquet", (tmp_path / "t.parquet").read_bytes())
    with external.open_parquet(url) as file:
        assert file.read().equals(table)
        footer = file.metadata
    with external.open_parquet(url, {}, footer) as file:
        assert file.read_row_group(1, ["b"]).to_pydict() == {"b": [None]}
    assert external.parquet_dataset(url).scanner(columns=["a"]).to_table().equals(table.select(["a"]))
    broken = put("broken.parquet", b"PAR1 not at all")
    with pytest.raises((OSError, pa.ArrowException)):
        external.open_parquet(broken)


def test_a_local_path_is_one_of_this_machine(put: Put, tmp_path: Path) -> None:
    url = put("a.bin", b"x")
    path = external.local_path(url)
    assert (path is None) == url.startswith("memory://")
    assert path is None or path.read_bytes() == b"x"
    assert external.absolute(url, "here").endswith("/a.bin")
    if path is not None:
        assert external.absolute(url, "here") == str(tmp_path / Path(url).parent.name / "a.bin")
