"""DataComp's subset file, written as a stream, from uids in order or in any order."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt

from curate.dataset.uid import SUBSET_DTYPE, moved

Records = npt.NDArray[np.void]

RUN_ROWS = 1 << 23
"""Uids that are sorted in memory: 128 MB, and twice as much while they are."""

_SLICE_BITS = 5

_AHEAD = 4
"""Writes that wait for the disk."""

_SAMPLED = 256
"""One of so many uids of a run is remembered, to cut all runs in equal parts."""


@dataclass(frozen=True)
class _Run:
    """Sorted uids in a file. It is not mapped: mapped pages stay in memory."""

    path: Path
    rows: int
    sample: npt.NDArray[np.uint64]

    def read(self, start: int, stop: int) -> Records:
        """Some of them."""
        offset = start * SUBSET_DTYPE.itemsize
        return np.fromfile(self.path, SUBSET_DTYPE, stop - start, offset=offset)

    def lower(self, bound: np.uint64) -> int:
        """How many have a first half below this."""
        low, high = 0, self.rows
        while low < high:
            middle = (low + high) // 2
            smaller = self.read(middle, middle + 1)["f0"][0] < bound
            low, high = (middle + 1, high) if smaller else (low, middle)
        return low


class SubsetWriter:
    """A sorted ``.npy`` of ``u8,u8`` records, shape (n,); a uid is there as often as it repeats.

    The bytes are those of ``np.save``; the header is written when the count is known. A thread writes
    while the next uids are looked for.
    """

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._stream: IO[bytes] = path.open("wb")
        self._header = len(_header(0))
        self._stream.write(_header(0))
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="subset-write")
        self._waiting: deque[Future[int]] = deque()

    def __enter__(self) -> SubsetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writing.shutdown()
        if kind is None:
            self._wait(0)
            header = _header(self.rows)
            if len(header) != self._header:
                raise AssertionError("numpy's header has grown; it is padded for any count")
            self._stream.seek(0)
            self._stream.write(header)
        self._stream.close()

    def add(self, records: Records) -> None:
        """Append uids, ascending and none before the last one that came before."""
        self._wait(_AHEAD - 1)
        self._waiting.append(self._writing.submit(self._stream.write, records.data))
        self.rows += len(records)

    def _wait(self, left: int) -> None:
        """Until no more writes are waiting; raises what went wrong with one."""
        while len(self._waiting) > left:
            self._waiting.popleft().result()


class SortingWriter:
    """A file as ``SubsetWriter`` makes it, from uids in any order.

    Memory: 400 MB, whatever the number of uids; beyond 8 million, sorted runs are in scratch files.

    Attributes:
        without_uid: rows left out because their uid is nothing but zeros, which stands for none.
        repeated: rows left out because another row had their uid.
    """

    def __init__(self, path: Path, scratch: Path, run_rows: int = RUN_ROWS) -> None:
        self.without_uid = self.repeated = 0
        self._path, self._scratch, self._run_rows = path, scratch, run_rows
        self._held = _Slices()
        self._runs: list[_Run] = []

    def __enter__(self) -> SortingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()

    def add(self, records: Records) -> None:
        """Append uids; none repeats, because what draws a row again needs the rows in order."""
        none = (records["f0"] == 0) & (records["f1"] == 0)
        if none.any():
            self.without_uid += int(np.count_nonzero(none))
            records = records[~none]
        self._held.add(records)
        if self._held.rows >= self._run_rows:
            self._spill()

    def _spill(self) -> None:
        path, sample = self._scratch / f"run_{len(self._runs):05d}", []
        held, self._held = self._held, _Slices()
        with path.open("wb") as stream:
            for records in held.in_order():
                stream.write(records.data)
                sample.append(records["f0"][::_SAMPLED].copy())
        self._runs.append(_Run(path, held.rows, np.concatenate(sample)))

    def _finish(self) -> None:
        with SubsetWriter(self._path) as writer:
            last = np.zeros(1, SUBSET_DTYPE)
            for records in self._merged():
                new = _not_as_before(last, records)
                self.repeated += len(records) - len(new)
                writer.add(new)
                last = records[-1:]

    def _merged(self) -> Iterable[Records]:
        if not self._runs:
            return self._held.in_order()
        if self._held.rows:
            self._spill()
        return _merge(self._runs, self._run_rows)


class _Slices:
    """Uids in any order, parted by their first bits.

    Each slice is sorted for itself: caches are small, and there are threads.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._slices: list[list[Records]] = [[] for _ in range(1 << _SLICE_BITS)]

    def add(self, records: Records) -> None:
        """Some more."""
        slices = (records["f0"] >> np.uint64(64 - _SLICE_BITS)).astype(np.uint8)
        ends = np.cumsum(np.bincount(slices, minlength=len(self._slices)))
        parted = moved(records, np.argsort(slices, kind="stable"))
        for mine, part in zip(self._slices, np.split(parted, ends[:-1]), strict=True):
            mine.append(part)
        self.rows += len(records)

    def in_order(self) -> Iterator[Records]:
        """All of them, sorted, in parts."""
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as executor:
            yield from (part for part in executor.map(_sorted, self._slices) if len(part))


def _sorted(parts: list[Records]) -> Records:
    records = np.concatenate([np.empty(0, SUBSET_DTYPE), *parts])
    parts.clear()
    found = moved(records, _order(records["f0"] >> np.uint64(32)))
    twins = _equal_to_next(found["f0"] >> np.uint64(32))
    if twins.any():
        # Next to each other already, and few of hashes.
        at = np.flatnonzero(np.append(twins, False) | np.append(False, twins))
        some = found[at]
        found[at] = some[np.lexsort((some["f1"], some["f0"]))]
    return found


def _order(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The order of numbers of 32 bits, 16 at a time, which is counting: five times as fast as comparing."""
    order = np.argsort(values.astype(np.uint16), kind="stable")
    return order[np.argsort((values >> np.uint64(16)).astype(np.uint16)[order], kind="stable")]


def _not_as_before(last: Records, records: Records) -> Records:
    """Sorted records without those that are equal to the one before."""
    equal = np.append(records["f0"][:1] == last["f0"], _equal_to_next(records["f0"]))
    if equal.any():
        equal &= np.append(records["f1"][:1] == last["f1"], _equal_to_next(records["f1"]))
    return records[~equal] if equal.any() else records


def _equal_to_next(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which numbers, but the last, are equal to the one behind them, shape (n - 1,)."""
    return np.asarray(values[1:] == values[:-1])


def _merge(runs: list[_Run], rows: int) -> Iterator[Records]:
    """Sorted runs as one, in parts of about so many rows."""
    sample = np.sort(np.concatenate([run.sample for run in runs]))
    parts = -(-sum(run.rows for run in runs) // rows)
    bounds = [sample[len(sample) * i // parts] for i in range(1, parts)]
    places = [[0, *(run.lower(bound) for bound in bounds), run.rows] for run in runs]
    for i in range(parts):
        held = _Slices()
        for run, at in zip(runs, places, strict=True):
            held.add(run.read(at[i], at[i + 1]))
        yield from held.in_order()


def _header(rows: int) -> bytes:
    stream = io.BytesIO()
    description = np.lib.format.dtype_to_descr(SUBSET_DTYPE)
    np.lib.format.write_array_header_1_0(
        stream, {"descr": description, "fortran_order": False, "shape": (rows,)}
    )
    return stream.getvalue()
