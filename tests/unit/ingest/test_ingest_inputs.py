from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from curate.errors import UserError
from curate.ingest.inputs import InputFile, expand_inputs, guess_format


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    for name in (
        "a.wat.gz",
        "sub/b.wat",
        "sub/c.parquet",
        "README.md",
        ".hidden/x.wat",
        "_tmp.wat",
        "[1].csv",
    ):
        path = tmp_path / "crawl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "crawl"


def names(files: list[InputFile], root: Path) -> list[str]:
    return [str(Path(file.url).relative_to(root)) for file in files]


def test_a_directory_is_its_tables_and_wats(crawl: Path) -> None:
    files = expand_inputs([str(crawl)])
    assert names(files, crawl) == ["[1].csv", "a.wat.gz", "sub/b.wat", "sub/c.parquet"]
    assert files[1].size == len("a.wat.gz")
    assert files[1].fingerprint.startswith("8-")


def test_order_and_repeats_do_not_matter(crawl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(crawl)
    patterns = [
        "sub",
        "*.wat.gz",
        "sub/b.wat",
        str(crawl / "a.wat.gz"),
        "file://" + str(crawl / "sub/c.parquet"),
    ]
    forward = expand_inputs(patterns)
    assert forward == expand_inputs(patterns[::-1])
    assert names(forward, crawl) == ["a.wat.gz", "sub/b.wat", "sub/c.parquet"]


def test_globs(crawl: Path) -> None:
    assert names(expand_inputs([f"{crawl}/**/*.wat*"]), crawl)[:2] == [".hidden/x.wat", "_tmp.wat"]
    assert names(expand_inputs([f"{crawl}/README.??"]), crawl) == ["README.md"]
    assert names(expand_inputs([f"{crawl}/[1].csv"]), crawl) == ["[1].csv"]


@pytest.mark.parametrize("pattern", ["none.wat", "*.none", "none/", "sub/none*.wat"])
def test_a_pattern_that_matches_nothing(crawl: Path, pattern: str) -> None:
    with pytest.raises(UserError, match="matches no file") as error:
        expand_inputs([str(crawl), f"{crawl}/{pattern}"])
    assert pattern in str(error.value)


def test_a_directory_without_input(crawl: Path) -> None:
    (crawl / "empty").mkdir()
    with pytest.raises(UserError, match=r"no file below '.*empty' ends in \.wat"):
        expand_inputs([str(crawl / "empty")])


def test_a_replaced_file_has_another_fingerprint(crawl: Path) -> None:
    (before,) = expand_inputs([str(crawl / "a.wat.gz")])
    assert expand_inputs([str(crawl / "a.wat.gz")]) == [before]
    (crawl / "a.wat.gz").write_text("something else")
    assert expand_inputs([str(crawl / "a.wat.gz")])[0].fingerprint != before.fingerprint


@pytest.mark.parametrize("packed", [True, False])
def test_a_path_list(crawl: Path, packed: bool) -> None:
    lines = b"crawl-data/2.wat.gz\n\n# a comment\ncrawl-data/1.wat.gz\nhttps://other.example/3.wat\n"
    path = crawl / ("wat.paths.gz" if packed else "wat.paths")
    path.write_bytes(gzip.compress(lines) if packed else lines)
    assert expand_inputs([str(path)]) == [
        InputFile("https://data.commoncrawl.org/crawl-data/1.wat.gz", None, "listed"),
        InputFile("https://data.commoncrawl.org/crawl-data/2.wat.gz", None, "listed"),
        InputFile("https://other.example/3.wat", None, "listed"),
    ]
    s3 = expand_inputs([str(path)], prefix="s3://commoncrawl")
    assert s3[-1].url == "s3://commoncrawl/crawl-data/2.wat.gz"


def test_a_path_list_of_several_gzip_members_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "all.paths.gz"  # as `cat` makes it of two crawls' lists
    path.write_bytes(gzip.compress(b"a/1.wat.gz\n") + gzip.compress(b"b/2.wat.gz\n"))
    assert [file.url.rpartition("/")[2] for file in expand_inputs([str(path)])] == ["1.wat.gz", "2.wat.gz"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot read the path list"):
        expand_inputs([str(path)])


def test_a_path_list_of_local_files(crawl: Path) -> None:
    path = crawl / "local.paths"
    path.write_text("a.wat.gz\nsub/b.wat\n")
    files = expand_inputs([str(path)], prefix=str(crawl))
    assert names(files, crawl) == ["a.wat.gz", "sub/b.wat"]
    assert files[0].size == 8
    path.write_text("none.wat\n")
    with pytest.raises(UserError, match=r"local\.paths' lists 'none\.wat', but there is no file"):
        expand_inputs([str(path)], prefix=str(crawl))


@pytest.mark.parametrize("data", [b"\x1f\x8b\x08broken", b"\xff\xfe"])
def test_a_broken_path_list(crawl: Path, data: bytes) -> None:
    (crawl / "wat.paths.gz").write_bytes(data)
    with pytest.raises(UserError, match="cannot read the path list"):
        expand_inputs([str(crawl / "wat.paths.gz")])


def test_an_unknown_store() -> None:
    with pytest.raises(UserError, match="cannot open 'nosuch://x/y'"):
        expand_inputs(["nosuch://x/y"])


def test_another_filesystem() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/ingest-inputs/a.parquet", b"abc")
    try:
        (file,) = expand_inputs(["memory://ingest-inputs"])
        assert (file.url, file.size) == ("memory:///ingest-inputs/a.parquet", 3)
    finally:
        fs.rm("/ingest-inputs", recursive=True)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""

    def end_headers(self) -> None:
        self.send_header("ETag", '"v1"')
        super().end_headers()


@pytest.fixture
def site(crawl: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(crawl)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_http(site: str) -> None:
    (file,) = expand_inputs([f"{site}/a.wat.gz"])
    assert (file.url, file.size, file.fingerprint) == (f"{site}/a.wat.gz", 8, '8-"v1"')
    assert expand_inputs([f"{site}/a.wat.gz?x=[1]"])[0].url == f"{site}/a.wat.gz?x=[1]"
    with pytest.raises(UserError, match=r"none\.wat' matches no file"):
        expand_inputs([f"{site}/none.wat"])


def test_http_that_does_not_answer() -> None:
    with pytest.raises(UserError, match=r"cannot look up|matches no file"):
        expand_inputs(["http://127.0.0.1:9/a.wat"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.warc.wat.gz", "wat"),
        ("s3://b/X.PARQUET", "parquet"),
        ("https://e.com/x.csv.gz?sig=1", "csv"),
        ("x.tsv", "tsv"),
        ("x.jsonl.gz", "jsonl"),
    ],
)
def test_guess_format(name: str, kind: str) -> None:
    assert guess_format(name) == kind


def test_a_format_that_the_name_does_not_say() -> None:
    with pytest.raises(UserError, match=r"x\.warc\.gz: the name does not say the format"):
        guess_format("x.warc.gz")
