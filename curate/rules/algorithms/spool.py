"""The cut of a top fraction or a quantile: exactly the k best rows of any pool, in constant memory.

Values go to a spool of 8 bytes a row, on disk when it is long, as integers that sort like the floats; the
k-th largest is found by counting 16 bits at a time, four passes over the spool, for many k at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
import numpy.typing as npt

MISSING = np.uint64(0)
"""Key of a row without a value; no float has it (minus infinity is 0x000F_FFFF_FFFF_FFFF)."""

_SIGN = np.uint64(1 << 63)
_DIGITS = 1 << 16
_BLOCK = 1 << 20
HELD_ROWS = 1 << 25
"""Values that all spools hold in memory."""
_NEAR = 1 << 22
"""Keys that are held while a cut is looked for among them."""
_AT_ONCE = 64
"""Cuts that are looked for in the same passes."""

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def rows_of_fraction(fraction: float, rows: int) -> int:
    """``floor(fraction * rows)`` of the fraction as it is written: 0.29 of 100 rows is 29, not 28."""
    return math.floor(Fraction(repr(fraction)) * rows)


def to_keys(values: npt.NDArray[np.float64], lowest: bool = False) -> Keys:
    """Floats as integers in which better is larger.

    Args:
        values: float64, shape (n,); NaN is a missing value.
        lowest: low values are the better ones.

    Returns:
        uint64, shape (n,); ``MISSING`` where the value is NaN. 0.0 and -0.0 are one key.
    """
    bits = ((-values if lowest else values) + 0.0).view(np.int64)
    # Of a negative number all bits are turned round, of others the sign.
    keys = bits >> 63
    keys |= np.int64(-(1 << 63))
    keys ^= bits
    found = keys.view(np.uint64)
    missing = np.isnan(values)
    if missing.any():
        found[missing] = MISSING
    return found


def from_key(key: int, lowest: bool = False) -> float:
    """The value of a key."""
    bits = np.uint64(key) ^ _SIGN if key >> 63 else ~np.uint64(key)
    value = float(np.array([bits], np.uint64).view(np.float64)[0])
    return (-value if lowest else value) + 0.0


@dataclass(frozen=True)
class LastRow:
    """The last row that is kept.

    Attributes:
        position: its place in the spool: the row's number in the pool.
        nth: so many rows of this value are kept, this one included.
    """

    value: float
    position: int
    nth: int


class Spool:
    """The values of one ranking, in pool order: in memory, or in a file when they are many.

    All spools of a process hold 256 MB between them; what goes beyond that is written.
    """

    _held_by_all: ClassVar[int] = 0

    def __init__(self, path: Path, lowest: bool) -> None:
        self.path, self.lowest = path, lowest
        self.rows = self.present = 0
        self._held: list[Keys] = []
        self._stream: IO[bytes] | None = None

    def __del__(self) -> None:
        self._let_go()

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Append the values of the next rows; float64, NaN where there is none."""
        keys = to_keys(values, self.lowest)
        self.rows += len(keys)
        self.present += int(np.count_nonzero(keys))
        if self._stream is None and Spool._held_by_all + len(keys) <= HELD_ROWS:
            self._held.append(keys)
            Spool._held_by_all += len(keys)
            return
        if self._stream is None:
            self._stream = self.path.open("wb")
            for held in self._held:
                self._stream.write(held.data)
            self._let_go()
        self._stream.write(keys.data)

    def _let_go(self) -> None:
        Spool._held_by_all -= sum(len(keys) for keys in self._held)
        self._held = []

    def _end(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def cut(self, count: int) -> LastRow | None:
        """The row that ends the ``count`` best; ties go to the earlier row. None when nothing passes.

        After the first call no more values can be added.
        """
        return self.cuts([count])[count]

    def cuts(self, counts: Iterable[int]) -> dict[int, LastRow | None]:
        """Count → the row that ends so many best, for many counts in the passes that one takes.

        Memory: 512 kB for each of at most ``_AT_ONCE`` counts, and 32 MB; more counts take further passes.
        """
        self._end()
        found: dict[int, LastRow | None] = dict.fromkeys(counts)
        ends = sorted({min(count, self.present) for count in found} - {0})
        rows: dict[int, LastRow] = {}
        for start in range(0, len(ends), _AT_ONCE):
            rows |= self._found(np.array(ends[start : start + _AT_ONCE], np.int64))
        return {count: rows.get(min(count, self.present)) for count in found}

    def equal(self, value: float) -> npt.NDArray[np.int64]:
        """The places of all rows of a value, ascending. No more values can be added."""
        self._end()
        (key,) = to_keys(np.array([value]), self.lowest)
        found, start = [np.empty(0, np.int64)], 0
        for keys in self._blocks():
            found.append(start + np.flatnonzero(keys == key))
            start += len(keys)
        return np.concatenate(found)

    def _found(self, ends: npt.NDArray[np.int64]) -> dict[int, LastRow]:
        """The rows at these places, counted from the best, from 1; ascending."""
        left, prefixes = ends.copy(), np.zeros(len(ends), np.uint64)
        counts = np.zeros((1, _DIGITS), np.int64)
        near: list[Keys] | None = None
        for shift in (48, 32, 16, 0):
            known, slots = np.unique(prefixes, return_inverse=True)
            if shift == 32 and counts[0, known.astype(np.int64)].sum() <= _NEAR:
                # Most often few keys begin like these, and nobody has to look at the others again.
                near = [_under(known, keys, np.uint64(48))[0] for keys in self._blocks()]
            counts = _counts(self._blocks() if near is None else near, known, shift)
            if shift == 48:
                counts[0, 0] -= self.rows - self.present
            above = np.cumsum(counts[:, ::-1], axis=1)
            for i, slot in enumerate(slots):
                step = int(np.searchsorted(above[slot], left[i]))
                left[i] -= above[slot, step - 1] if step else 0
                prefixes[i] = prefixes[i] << np.uint64(16) | np.uint64(_DIGITS - 1 - step)
        places = self._positions(prefixes, left)
        return {
            int(end): LastRow(from_key(int(key), self.lowest), place, int(nth))
            for end, key, place, nth in zip(ends, prefixes, places, left, strict=True)
        }

    def _positions(self, keys: Keys, nths: npt.NDArray[np.int64]) -> list[int]:
        """For each key the row number of its ``nth`` row, from 1."""
        found = [-1] * len(keys)
        left, start = nths.copy(), 0
        for block in self._blocks():
            for i in [i for i, place in enumerate(found) if place < 0]:
                rows = np.flatnonzero(block == keys[i])
                if len(rows) >= left[i]:
                    found[i] = start + int(rows[left[i] - 1])
                left[i] -= len(rows)
            start += len(block)
            if min(found) >= 0:
                return found
        raise AssertionError("the spool holds fewer rows of the cut's value than were counted")

    def _blocks(self) -> Iterator[Keys]:
        if self._stream is None:
            yield from self._held
            return
        with self.path.open("rb") as stream:
            while len(block := np.fromfile(stream, np.uint64, _BLOCK)):
                yield block


def _counts(blocks: Iterable[Keys], prefixes: Keys, shift: int) -> npt.NDArray[np.int64]:
    """How many keys that begin with each prefix have each next 16 bits, shape (prefixes, 65536).

    Args:
        prefixes: ascending, different; of the first pass a single one, that has no bits.
    """
    size = len(prefixes) * _DIGITS
    counts = np.zeros(size, np.int64)
    for keys in blocks:
        slots: npt.NDArray[np.int64] | int = 0
        if shift < 48:
            keys, slots = _under(prefixes, keys, np.uint64(shift + 16))
        digits = ((keys >> np.uint64(shift)) & np.uint64(_DIGITS - 1)).astype(np.int64)
        counts += np.bincount(slots * _DIGITS + digits, minlength=size)
    return counts.reshape(-1, _DIGITS)


def _under(prefixes: Keys, keys: Keys, shift: np.uint64) -> tuple[Keys, npt.NDArray[np.int64] | int]:
    """The keys that begin with one of these prefixes, and with which."""
    begins = keys >> shift
    if len(prefixes) == 1:
        return keys[begins == prefixes[0]], 0
    slots = np.minimum(np.searchsorted(prefixes, begins), len(prefixes) - 1)
    same = prefixes[slots] == begins
    return keys[same], slots[same]
