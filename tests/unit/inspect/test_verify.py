from __future__ import annotations

from pathlib import Path

import pytest

from curate.dataset.workspace import Workspace
from curate.errors import DataError, UserError
from curate.inspect.verify import verify
from tests.unit.filter.filter_pool import commit


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    space = Workspace(str(tmp_path))
    for shard in ("00000", "00001"):
        commit(space, "download", shard, [space.write_bytes(f"images/{shard}.tar", shard.encode() * 9)])
    commit(space, "score/s", "00000", [space.write_bytes("scores/s/00000.parquet", b"scores")])
    return space


def test_all_is_well(workspace: Workspace) -> None:
    for deep in (False, True):
        found = verify(workspace, deep)
        assert (found.files, found.size, found.damages) == (3, 2 * 45 + 6, [])


def test_what_is_gone_or_cut_or_changed(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "images/00000.tar").unlink()
    (tmp_path / "images/00001.tar").write_bytes(b"x" * 45)
    (tmp_path / "scores/s/00000.parquet").write_bytes(b"short")
    shallow = [("images/00000.tar", "gone"), ("scores/s/00000.parquet", "another size")]
    assert [(d.path, d.what) for d in verify(workspace).damages] == shallow
    deep = verify(workspace, deep=True).damages
    assert [(d.path, d.what) for d in deep] == [shallow[0], ("images/00001.tar", "other bytes"), shallow[1]]
    assert deep[1].fix == "remove it, and run `curate download` again"
    assert [d.path for d in verify(workspace, only=["score"]).damages] == ["scores/s/00000.parquet"]


def test_every_flipped_bit_is_seen(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "images/00001.tar"
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert verify(workspace).damages == []
        assert [d.path for d in verify(workspace, deep=True).damages] == ["images/00001.tar"]


def test_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no workspace here"):
        verify(Workspace(str(tmp_path / "none")))


def test_a_record_that_is_none(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / ".curate/records/download/00001.json").write_bytes(b'{"stage": "down')
    with pytest.raises(DataError, match=r"download/00001\.json: not a commit record .*; remove it"):
        verify(workspace)
