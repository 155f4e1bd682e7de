"""Subset files from uids in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset.uid import SUBSET_DTYPE
from curate.filter.subset import SortingWriter, SubsetWriter

# Few different halves, so that first halves are often equal, and now and then whole uids.
half = st.one_of(st.integers(0, 3), st.sampled_from([2**63 - 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1))
uids = st.lists(st.tuples(half, half), max_size=60)


def written(path: Path, batches: list[list[tuple[int, int]]], run_rows: int) -> SortingWriter:
    with SortingWriter(path / "subset.npy", path, run_rows) as writer:
        for batch in batches:
            writer.add(np.array(batch, SUBSET_DTYPE))
    return writer


@settings(max_examples=150, deadline=None)
@given(st.lists(uids, max_size=5), st.sampled_from([1, 7, 1000]))
def test_the_file_is_that_of_sorted_uids(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]], run_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("subset")
    everything = [uid for batch in batches for uid in batch]
    writer = written(folder, batches, run_rows)
    expected = np.array(sorted({u for u in everything if u != (0, 0)}), SUBSET_DTYPE)
    np.save(folder / "expected.npy", expected)
    assert (folder / "subset.npy").read_bytes() == (folder / "expected.npy").read_bytes()
    assert writer.without_uid == everything.count((0, 0))
    assert writer.repeated == len(everything) - writer.without_uid - len(expected)


def test_runs_that_do_not_fit_in_memory_give_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, (5_000, 2), np.uint64)
    batches = [[(int(a), int(b)) for a, b in part] for part in np.array_split(values, 13)]
    contents = set()
    for run_rows in (300, 4_000, 10_000):
        folder = tmp_path / str(run_rows)
        folder.mkdir()
        written(folder, batches, run_rows)
        contents.add((folder / "subset.npy").read_bytes())
    assert len(contents) == 1


def test_an_error_leaves_no_file_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with SortingWriter(tmp_path / "subset.npy", tmp_path) as writer:
            writer.add(np.ones(3, SUBSET_DTYPE))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert not (tmp_path / "subset.npy").exists()


def test_uids_in_order_may_repeat(tmp_path: Path) -> None:
    with SubsetWriter(tmp_path / "subset.npy") as writer:
        writer.add(np.array([(0, 1), (0, 1), (0, 1), (0, 2)], SUBSET_DTYPE))
    assert np.load(tmp_path / "subset.npy")["f1"].tolist() == [1, 1, 1, 2]
