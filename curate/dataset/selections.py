"""What an experiment kept: one sorted file of uids, and where each shard's begin in it.

``subset.npy`` is DataComp's subset file, with a uid as often as it repeats; ``counts.parquet`` cuts it
into shards. Both are small: 16 bytes for every kept sample, a row for every shard.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.uid import SUBSET_DTYPE, from_halves
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import DataError

COUNTS = pa.schema(
    [("shard", pa.string()), ("samples", pa.int64()), ("kept", pa.int64()), ("total", pa.int64())]
)
"""Samples of a shard, how many are kept, and the sum of their repeats."""

SUBSET = "subset.npy"

SELECTED = pa.schema([("uid", pa.string()), ("repeats", pa.int32())]).empty_table()
"""No kept samples."""


def selection_refs(workspace: Workspace, experiment: str) -> tuple[FileRef, ...]:
    """The committed files that say what is kept; none before the experiment has run."""
    committed = RecordStore(workspace).outputs(f"filter/{experiment}")
    wanted = [layout.selection_file(experiment, name) for name in ("counts.parquet", SUBSET)]
    return tuple(committed[path] for path in wanted if path in committed)


class Selection:
    """The kept samples of an experiment, shard by shard.

    Raises:
        DataError: the files are not there, or do not belong together.
    """

    def __init__(self, workspace: Workspace, experiment: str) -> None:
        self._workspace = workspace
        self._path = layout.selection_file(experiment, SUBSET)
        counts = workspace.read_table(layout.selection_file(experiment, "counts.parquet"))
        totals = np.asarray(counts["total"], np.int64)
        ends = np.cumsum(totals)
        self._places = {
            shard: (int(end - total), int(total))
            for shard, end, total in zip(counts["shard"].to_pylist(), ends, totals, strict=True)
        }
        self.kept = dict(zip(counts["shard"].to_pylist(), counts["kept"].to_pylist(), strict=True))
        """Shard → its kept samples."""
        self._start = self._begin(int(totals.sum()))

    def _begin(self, total: int) -> int:
        """Where the uids begin, behind numpy's header."""
        place = f"{self._workspace.url}/{self._path}"
        try:
            with self._workspace.open(self._path) as stream:
                np.lib.format.read_magic(stream)
                shape, _, kind = np.lib.format.read_array_header_1_0(stream)
                start = stream.tell()
                size = stream.seek(0, 2)
        except ValueError as error:
            raise DataError(
                f"{place}: not a whole npy file ({error}); remove it and run `curate filter`"
            ) from None
        if (shape, kind, size) != ((total,), SUBSET_DTYPE, start + total * SUBSET_DTYPE.itemsize):
            raise DataError(f"{place}: not the file of its counts; remove it and run `curate filter`")
        return start

    def read(self, shard: str) -> pa.Table:
        """``uid`` and ``repeats`` (int32) of a shard's kept samples, in uid order."""
        first, rows = self._places.get(shard, (0, 0))
        with self._workspace.open(self._path) as stream:
            stream.seek(self._start + first * SUBSET_DTYPE.itemsize)
            data = stream.read(rows * SUBSET_DTYPE.itemsize)
        return _counted(np.frombuffer(data, SUBSET_DTYPE))

    @contextlib.contextmanager
    def mapped(self) -> Iterator[Callable[[str, str], pa.Table]]:
        """A function that gives the kept samples from one uid to another, the last included, in uid order."""
        with self._workspace.local(self._path) as local:
            if local.stat().st_size == self._start:
                yield lambda first, last: SELECTED
                return
            records = np.memmap(local, SUBSET_DTYPE, "r", self._start)

            def place(uid: str) -> int:
                """How many records come before a uid."""
                asked = (int(uid[:16], 16), int(uid[16:], 16))
                return bisect.bisect_left(range(len(records)), asked, key=lambda i: records[i].item())

            def between(first: str, last: str) -> pa.Table:
                after = f"{int(last, 16) + 1:032x}"
                end = len(records) if len(after) > 32 else place(after)
                return _counted(np.array(records[place(first) : end]))

            yield between


def firsts(records: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Which of these sorted uids are not the same as the one before, shape (n,)."""
    first = np.ones(len(records), bool)
    first[1:] = records[1:] != records[:-1]
    return first


def _counted(records: npt.NDArray[np.void]) -> pa.Table:
    """Each of these sorted uids once, with how often it is there."""
    starts = np.flatnonzero(firsts(records))
    repeats = np.diff(np.append(starts, len(records))).astype(np.int32)
    return pa.table({"uid": from_halves(records[starts]), "repeats": repeats})
