"""Files that a config names: what is found below a local folder is what fsspec finds there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curate.dataset import listing
from curate.dataset.listing import is_path, listed
from curate.errors import UserError

ENDINGS = (".parquet", ".npy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b.parquet",
        "a/c.npy",
        "a/d/e.parquet",
        ".hidden.parquet",
        "_tmp.npy",
        "notes.txt",
        "x/.y/z.npy",
    ):
        path = tmp_path / "there" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "f.parquet").write_text("far away")
    (tmp_path / "there/linked").symlink_to(elsewhere)
    (tmp_path / "there/g.npy").symlink_to(elsewhere / "f.parquet")
    return tmp_path / "there"


def test_a_folder_is_listed_as_fsspec_lists_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    expected = [ref for ref in listing._found(str(folder), {}, "here") if ref.path.endswith(ENDINGS)]
    expected = [ref for ref in expected if not Path(ref.path).name.startswith((".", "_"))]
    for spelled in (str(folder), f"{folder}/", "there", "./there", "there/../there"):
        assert set(listed(spelled, {}, "here", ENDINGS)) == set(expected)
    names = sorted(os.path.relpath(ref.path, folder) for ref in expected)
    assert names == ["a/c.npy", "a/d/e.parquet", "b.parquet", "g.npy", "x/.y/z.npy"]
    assert all(is_path(ref.path) for ref in expected)


def test_a_file_that_was_replaced_is_another(folder: Path) -> None:
    before = {ref.path: ref for ref in listed(str(folder), {}, "here", ENDINGS)}
    (folder / "b.parquet").write_text("other!")
    after = {ref.path: ref for ref in listed(str(folder), {}, "here", ENDINGS)}
    assert [Path(p).name for p in before if before[p] != after[p]] == ["b.parquet"]


def test_a_link_to_nothing_is_nothing(folder: Path) -> None:
    (folder / "gone.npy").symlink_to(folder / "nowhere.npy")
    assert not [ref for ref in listed(str(folder), {}, "here", ENDINGS) if "gone" in ref.path]


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"here: '/nowhere/x': no such file or folder"):
        list(listed("/nowhere/x", {}, "here", ENDINGS))


def test_a_folder_that_cannot_be_listed_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UserError, match=r"here: '.*there' cannot be listed: .*Permission denied"):
        list(listed(str(folder), {}, "here", ENDINGS))


@pytest.mark.parametrize(
    ("url", "plain"),
    [("/a/b.parquet", True), ("a/b", False), ("s3://a/b", False), ("/a.zip::/b", False), ("~/a", False)],
)
def test_paths_of_this_machine(url: str, plain: bool) -> None:
    assert is_path(url) is plain
