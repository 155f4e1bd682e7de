"""Files of some uids of a pool with what is known of them, in uid order, read a range at a time."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.dataset.uid import SUBSET_DTYPE, from_halves, halves
from curate.dataset.workspace import FileRef, Workspace, ref_of

GROUP_ROWS = 65_536


def write_uid_file(
    workspace: Workspace, path: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> tuple[FileRef, int]:
    """Commit rows that come in uid order; how they are cut into batches does not change the bytes.

    Returns:
        The committed file and its rows.
    """
    rows = 0
    with workspace.writing(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in _regrouped(batches):
                writer.write_table(table.cast(schema))
                rows += table.num_rows
        return ref_of(temporary, path), rows


def _regrouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Rows of batches of any length in tables of equal length."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        while rows >= GROUP_ROWS:
            table = pa.Table.from_batches(held)
            yield table.slice(0, GROUP_ROWS)
            held = table.slice(GROUP_ROWS).to_batches()
            rows -= GROUP_ROWS
    if rows:
        yield pa.Table.from_batches(held)


class UidFile:
    """Looks up uids in such a file; holds one row group."""

    def __init__(self, workspace: Workspace, path: str) -> None:
        self._stack = ExitStack()
        local = self._stack.enter_context(workspace.local(path))
        self._file = self._stack.enter_context(pq.ParquetFile(local))
        groups = (self._file.metadata.row_group(i) for i in range(self._file.num_row_groups))
        bounds = [g.column(0).statistics for g in groups if g.num_rows]
        self._first, self._last = [b.min for b in bounds], [b.max for b in bounds]
        self._held: tuple[int, pa.Table] | None = None

    def between(self, first: str, last: str) -> pa.Table:
        """Rows whose uid is in ``[first, last]``, in uid order."""
        groups = range(bisect.bisect_left(self._last, first), bisect.bisect_right(self._first, last))
        tables = [self._group(i) for i in groups]
        table = pa.concat_tables(tables) if tables else self._file.schema_arrow.empty_table()
        uids = table["uid"]
        return table.filter(pc.and_(pc.greater_equal(uids, first), pc.less_equal(uids, last)))

    def among(self, uids: pa.ChunkedArray) -> pa.Table:
        """Rows whose uid is between the first and the last of these, which are in order."""
        return self.between(uids[0].as_py(), uids[-1].as_py()) if len(uids) else self.between("", "")

    def _group(self, index: int) -> pa.Table:
        if self._held is None or self._held[0] != index:
            self._held = (index, self._file.read_row_group(index))
        return self._held[1]

    def close(self) -> None:
        """Close the file."""
        self._stack.close()


class UidSpool:
    """The uids of some rows, in the order of the pool, on disk: 16 bytes each."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self._stream = path.open("wb")

    def add(self, uids: pa.ChunkedArray) -> None:
        """Append uids."""
        self._stream.write(halves(uids).tobytes())
        self.rows += len(uids)

    def stored(self) -> npt.NDArray[np.void]:
        """All uids as ``u8,u8``, shape (n,), mapped from the file. No more can be added."""
        self._stream.close()
        if not self.rows:
            return np.empty(0, SUBSET_DTYPE)
        return np.memmap(self.path, SUBSET_DTYPE, "r")

    def texts(self, places: npt.NDArray[np.int64]) -> pa.Array:
        """Uids at these places."""
        return from_halves(self.stored()[places]) if len(places) else pa.array([], pa.string())
