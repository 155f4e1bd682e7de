from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset import layout
from curate.dataset.selections import COUNTS, Selection, selection_refs
from curate.dataset.uid import halves
from curate.dataset.workspace import Workspace
from curate.errors import DataError

SHARDS = st.lists(st.dictionaries(st.integers(0, 2**120), st.integers(1, 4), max_size=6), max_size=5)


def write(folder: Path, shards: list[dict[str, int]]) -> Workspace:
    """What the filter leaves behind: uid → repeats, by shard."""
    workspace = Workspace(str(folder))
    uids = [uid for shard in shards for uid in sorted(shard) for _ in range(shard[uid])]
    path = folder / layout.selection_file("e", "subset.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, halves(pa.array(uids, pa.string())))
    rows = [
        {"shard": f"{i:05d}", "samples": 9, "kept": len(s), "total": sum(s.values())}
        for i, s in enumerate(shards)
    ]
    workspace.write_table(layout.selection_file("e", "counts.parquet"), pa.Table.from_pylist(rows, COUNTS))
    return workspace


@settings(max_examples=50, deadline=None)
@given(SHARDS)
def test_every_shard_is_read_back_alone(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[dict[int, int]]
) -> None:
    shards = [
        {f"{i:x}{number:031x}": many for number, many in shard.items()} for i, shard in enumerate(drawn)
    ]
    selection = Selection(write(tmp_path_factory.mktemp("w"), shards), "e")
    for i, shard in reversed(list(enumerate(shards))):
        table = selection.read(f"{i:05d}")
        assert table["uid"].to_pylist() == sorted(shard)
        assert table["repeats"].to_pylist() == [shard[uid] for uid in sorted(shard)]
        assert table["repeats"].type == pa.int32()
        assert selection.kept[f"{i:05d}"] == len(shard)


def test_a_shard_that_the_experiment_has_not_seen_has_nothing(tmp_path: Path) -> None:
    selection = Selection(write(tmp_path, [{"1" * 32: 2}]), "e")
    assert selection.read("00007").num_rows == 0


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    workspace = write(tmp_path, [{"1" * 32: 2, "2" * 32: 1}])
    subset = tmp_path / layout.selection_file("e", "subset.npy")
    np.save(subset, halves(pa.array(["1" * 32])))
    with pytest.raises(
        DataError, match=r"subset.npy: not the file of its counts; remove it and run `curate filter`"
    ):
        Selection(workspace, "e")
    subset.write_bytes(subset.read_bytes()[:5])
    with pytest.raises(DataError, match="not a whole npy file"):
        Selection(workspace, "e")
    subset.unlink()
    with pytest.raises(DataError, match="no such file"):
        Selection(workspace, "e")


def test_nothing_counts_without_a_record(tmp_path: Path) -> None:
    assert selection_refs(write(tmp_path, [{"1" * 32: 2}]), "e") == ()
