"""A local folder by its path is what it is by fsspec, and no fsspec is asked for it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest

from curate.dataset.records import Record, RecordStore
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import DataError


@pytest.mark.parametrize(
    "url", ["w", "./w", "a/../w", ".", "", "w/", "/", "/tmp/w//", "~/w", "file:///tmp/w", "..", "a b"]
)
def test_a_path_is_written_as_fsspec_writes_it(url: str) -> None:
    expected = str(fsspec.core.url_to_fs(url)[1]).rstrip("/")
    workspace = Workspace(url)
    assert workspace.location("") == (expected or "/")
    assert workspace.location("a/b") == f"{expected}/a/b"
    assert workspace.root


def made(url: str) -> Workspace:
    workspace = Workspace(url)
    workspace.write_bytes("a/one.bin", b"1")
    workspace.write_bytes("a/deep/two.bin", b"22")
    workspace.write_bytes("three.bin", b"333")
    return workspace


@pytest.mark.parametrize("kind", ["path", "file", "memory"])
def test_every_kind_of_url_gives_the_same(tmp_path: Path, kind: str) -> None:
    urls = {"path": str(tmp_path), "file": f"file://{tmp_path}", "memory": "memory://of-a-test/w"}
    workspace = made(urls[kind])
    assert workspace.sizes("a") == {"a/one.bin": 1}
    assert workspace.sizes("") == {"three.bin": 3}
    assert workspace.sizes("none") == {}
    assert sorted(workspace.below("a")) == ["deep/two.bin", "one.bin"]
    assert workspace.below("none") == []
    assert workspace.exists("a")
    assert workspace.exists("a/one.bin")
    assert not workspace.exists("a/none.bin")
    assert workspace.read_bytes("a/deep/two.bin") == b"22"
    with pytest.raises(DataError, match=r"none\.bin: no such file"):
        workspace.read_bytes("none.bin")
    with workspace.log("logs/of/run.txt") as log:
        log.write(b"line\n")
    assert workspace.read_bytes("logs/of/run.txt") == b"line\n"
    workspace.remove("a/one.bin")
    workspace.remove("a/one.bin")
    assert workspace.sizes("a") == {}
    workspace.remove_tree("")
    assert not workspace.exists("three.bin")


def test_links_are_seen_as_fsspec_sees_them(tmp_path: Path) -> None:
    workspace, fs = made(str(tmp_path)), fsspec.filesystem("file")
    (tmp_path / "a" / "link.bin").symlink_to(tmp_path / "three.bin")
    (tmp_path / "a" / "broken.bin").symlink_to(tmp_path / "none.bin")
    listed = {e["name"]: e["size"] for e in fs.ls(f"{tmp_path}/a", detail=True) if e["type"] == "file"}
    assert workspace.sizes("a") == {os.path.relpath(name, tmp_path): size for name, size in listed.items()}
    assert (workspace.exists("a/link.bin"), workspace.exists("a/broken.bin")) == (True, False)
    assert workspace.exists("three.bin/below") == fs.exists(f"{tmp_path}/three.bin/below")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/tmp/w", "/tmp/w/", True),
        ("/tmp/w", "file:///tmp/w", True),
        ("/tmp/w", "/tmp/v", False),
        ("/w", "memory:///w", False),
        ("memory://w", "memory://w/", True),
    ],
)
def test_what_is_one_folder(one: str, other: str, same: bool) -> None:
    assert Workspace(one).is_same(Workspace(other)) is same
    assert Workspace(other).is_same(Workspace(one)) is same


def test_options_may_name_another_protocol() -> None:
    workspace = Workspace("of-a-test", {"protocol": "memory"})
    assert workspace.root is None
    assert workspace.location("a") == "memory:///of-a-test/a"


@pytest.mark.parametrize("url", ["w", "memory://w"])
def test_a_workspace_travels_to_workers(url: str) -> None:
    workspace = Workspace(url, {})
    assert workspace.location("a")
    arrived = pickle.loads(pickle.dumps(workspace))
    assert (arrived.url, arrived.options, arrived.location("a")) == (url, {}, workspace.location("a"))


def record(unit: str, **fields: Any) -> Record:
    facts = {"stage": "s", "key": "k", "settings": {}, "code_version": 1, "inputs_digest": "", "inputs": []}
    return Record(**{**facts, "unit": unit, "rows_in": 0, "rows_out": 0, "drops": {}, **fields})


def test_outputs_are_those_of_the_records(tmp_path: Path) -> None:
    store = RecordStore(Workspace(str(tmp_path)))
    assert not store.has_outputs("s")
    for number in range(70):
        store.write(record(f"{number:03d}", outputs=[]))
    assert not store.has_outputs("s")
    for number in range(0, 70, 2):
        store.write(record(f"{number:03d}", outputs=[FileRef(f"f/{number}", number, "old")]))
    store.fold("s")
    store.write(record("004", outputs=[FileRef("f/4", 4, "new"), FileRef("f/4b", 4, "new")]))
    store.write(record("999", outputs=[FileRef("f/999", 9, "new")]))
    assert store.has_outputs("s")
    assert store.outputs("s") == {ref.path: ref for r in store.iterate("s") for ref in r.outputs}
    assert store.outputs("s")["f/4"].digest == "new"
    assert len(store.outputs("s")) == 37
    assert store.read("s", "006") == record("006", outputs=[FileRef("f/6", 6, "old")])
    assert store.read("s", "none") is None
    assert store.stages() == ["s"]
