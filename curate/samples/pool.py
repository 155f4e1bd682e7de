"""The samples of all shards, one shard after the other, ready for SQL."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset.uid import SUBSET_DTYPE, from_halves, halves
from curate.dataset.workspace import Workspace
from curate.errors import DataError
from curate.samples.columns import Column, read_samples
from curate.samples.types import scan_type

BATCH_ROWS = 131_072
"""Rows that one query looks at: a query costs as much as a few ten thousand rows."""


T = TypeVar("T")


class Uids(IntEnum):
    """In which form a scan gives uids; who can use one can use those behind it."""

    NONE = 0
    """Not at all, where that is possible; a table without any other column has them."""
    RAW = 1
    """What costs least, unchecked; ``curate.dataset.uid.usable_halves`` reads it."""
    TEXT = 2
    """As strings of 32 hex digits."""


@dataclass(frozen=True)
class Batch:
    """Some whole shards, one after the other.

    Attributes:
        table: ``uid`` and the columns that were asked for, of all of them.
        shards: name and rows of each.
    """

    table: pa.Table
    shards: tuple[tuple[str, int], ...]

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Name and row range in the table of every shard."""
        start = 0
        for shard, rows in self.shards:
            yield shard, slice(start, start + rows)
            start += rows


@dataclass(frozen=True)
class Pool:
    """Where the samples of an experiment are.

    Attributes:
        shards: names, in order of their uids.
        columns: every column there is, by its public name.
        batch_rows: a batch of a scan has at least as many, but for the last one.
    """

    workspace: Workspace
    shards: tuple[str, ...]
    columns: dict[str, Column]
    batch_rows: int = field(default=BATCH_ROWS, kw_only=True)

    ordered: ClassVar[bool] = True
    """Whether ``scan`` gives the rows in uid order."""

    readers: ClassVar[int] = 2
    """Threads that read shards while one is judged; at most twice as many are in memory."""

    def read(self, shard: str, names: Sequence[str], uids: Uids = Uids.TEXT) -> pa.Table:
        """The named columns of one shard, ``uid`` first, NaN turned into NULL.

        Raises:
            DataError: a column has another type than in the first shard, or uids are not in order.
        """
        table = read_samples(self.workspace, shard, names, self.columns)
        parts = {"uid": table["uid"], **{n: self._clean(shard, n, table[n]) for n in names if n != "uid"}}
        _check_order(self.workspace, shard, self.columns["uid"], parts["uid"])
        return pa.table(parts)

    def scan(self, names: Sequence[str], uids: Uids = Uids.TEXT) -> Iterator[Batch]:
        """All shards in order, in batches, read a few shards ahead.

        Args:
            uids: the form that is wanted; where it makes no difference they are strings.

        Raises:
            DataError: as ``read``, or a shard begins before the one before it ends.
        """
        held: list[tuple[str, pa.Table]] = []
        rows = 0
        for shard, table in self._parts(names, uids):
            held.append((shard, table))
            rows += table.num_rows
            if rows >= self.batch_rows:
                yield _batch(held)
                held, rows = [], 0
        if held:
            yield _batch(held)

    def _parts(self, names: Sequence[str], uids: Uids) -> Iterator[tuple[str, pa.Table]]:
        """Every shard and its rows, in order."""
        last = ""
        for shard, table in self._ahead(names, uids):
            if table.num_rows:
                first = table["uid"][0].as_py()
                if first <= last:
                    base = self.columns["uid"]
                    raise DataError(
                        f"{self.workspace.url}/{base.family.path(shard)}: begins with uid {first}, "
                        f"which does not come after {last} of the shard before; run {base.family.stage} again"
                    )
                last = table["uid"][-1].as_py()
            yield shard, table

    def _ahead(self, names: Sequence[str], uids: Uids) -> Iterator[tuple[str, pa.Table]]:
        executor = ThreadPoolExecutor(self.readers, thread_name_prefix="filter-read")
        waiting: deque[tuple[str, Future[pa.Table]]] = deque()
        try:
            for shard in self.shards:
                waiting.append((shard, executor.submit(self.read, shard, names, uids)))
                if len(waiting) == 2 * self.readers:
                    name, future = waiting.popleft()
                    yield name, future.result()
            while waiting:
                name, future = waiting.popleft()
                yield name, future.result()
        finally:
            executor.shutdown(cancel_futures=True)

    def _clean(self, shard: str, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
        column = self.columns[name]
        try:
            values = cast_whole(values, scan_type(column.type))
        except pa.ArrowException:
            raise DataError(
                f"{self.workspace.url}/{column.family.path(shard)}: column '{name}' is "
                f"{values.type}, in the first shard it is {column.type}; run {column.family.stage} again"
            ) from None
        return nan_to_null(values)


def prefetch(items: Generator[T]) -> Iterator[T]:
    """The same items; a thread makes one while the one before it is used."""
    end = object()
    with contextlib.closing(items), ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        coming: Future[Any] = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


def _batch(held: list[tuple[str, pa.Table]]) -> Batch:
    return Batch(pa.concat_tables([t for _, t in held]), tuple((s, t.num_rows) for s, t in held))


def cast_whole(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The same values in another type.

    Raises:
        pa.ArrowException: one would be another value there, or texts would be read as numbers.
    """
    if values.type == kind:
        return values
    if is_text(values.type) != is_text(kind):
        raise pa.ArrowTypeError(f"{values.type} is not {kind}")
    found = values.cast(kind)
    if (
        pa.types.is_floating(kind)
        and pa.types.is_floating(values.type)
        and kind.bit_width < values.type.bit_width
    ):
        same = pc.or_(pc.equal(found.cast(values.type), values), pc.is_nan(values))
        if not pc.all(same, skip_nulls=True, min_count=0).as_py():
            raise pa.ArrowInvalid(f"{values.type} has numbers that {kind} rounds")
    return found


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts, also by a dictionary."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def nan_to_null(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """SQL says that NaN is greater than every number; as a score it is none."""
    if not pa.types.is_floating(values.type):
        return values
    missing = pc.is_nan(values)
    return pc.if_else(missing, pa.scalar(None, values.type), values) if pc.any(missing).as_py() else values


def _check_order(workspace: Workspace, shard: str, column: Column, uids: pa.ChunkedArray) -> None:
    if uids.null_count or (len(uids) > 1 and not pc.all(pc.less(uids[:-1], uids[1:])).as_py()):
        raise DataError(
            f"{workspace.url}/{column.family.path(shard)}: its uids are not in ascending order "
            f"without repeats; run {column.family.stage} again"
        )


def doubles(values: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Numbers as float64 of shape (n,), NaN where there is no value; not to be changed.

    Integers beyond 2**53 are rounded.
    """
    numbers = values.cast(pa.float64(), safe=False)
    if numbers.null_count:
        numbers = numbers.fill_null(float("nan"))
    # Of a single chunk there is no copy.
    return np.asarray(numbers.chunk(0) if numbers.num_chunks == 1 else numbers, dtype=np.float64)


class UidAt:
    """The uid of the pool's row of a number, counted as ``scan`` gives them.

    Args:
        lengths: rows of every shard, in order.
    """

    def __init__(self, pool: Pool, lengths: Mapping[str, int]) -> None:
        self.pool = pool
        self._shards = list(lengths)
        self._ends = np.cumsum([0, *lengths.values()])

    @property
    def ordered(self) -> bool:
        """Whether rows of higher numbers have greater uids."""
        return self.pool.ordered

    def __call__(self, position: int) -> str:
        """One uid; reads those of a shard."""
        return str(from_halves(self.all(np.array([position])))[0].as_py())

    def all(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
        """Those of many rows, whose numbers ascend, as ``u8,u8``."""
        shards = np.searchsorted(self._ends, positions, "right") - 1
        found = [np.empty(0, SUBSET_DTYPE)]
        for shard in np.unique(shards).tolist():
            rows = positions[shards == shard] - self._ends[shard]
            uids = self.pool.read(self._shards[shard], [])["uid"]
            found.append(halves(uids.take(pa.array(rows))))
        return np.concatenate(found)
