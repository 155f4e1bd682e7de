"""The cut of a top fraction or a quantile: exactly the k best rows of any pool, in constant memory.

Values go to a spool file of 8 bytes a row as integers that sort like the floats; the k-th largest is
found by counting 16 bits at a time, four passes over the spool.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

MISSING = np.uint64(0)
"""Key of a row without a value; no float has it (minus infinity is 0x000F_FFFF_FFFF_FFFF)."""

_SIGN = np.uint64(1 << 63)
_DIGITS = 1 << 16
_BLOCK = 1 << 20

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
    bits = ((-values if lowest else values) + 0.0).view(np.uint64)
    keys = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    keys[np.isnan(values)] = MISSING
    return keys


def from_key(key: int, lowest: bool = False) -> float:
    """The value of a key."""
    bits = np.uint64(key) ^ _SIGN if key >> 63 else ~np.uint64(key)
    value = float(np.array([bits], np.uint64).view(np.float64)[0])
    return (-value if lowest else value) + 0.0


@dataclass(frozen=True)
class Cut:
    """The last row that is kept."""

    value: float
    position: int
    """Its place in the spool: the row's number in the pool."""


class Spool:
    """The values of one ranking, in pool order."""

    def __init__(self, path: Path, lowest: bool) -> None:
        self.path, self.lowest = path, lowest
        self.rows = self.present = 0
        self._stream = path.open("wb")

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Append the values of the next rows; float64, NaN where there is none."""
        keys = to_keys(values, self.lowest)
        self.rows += len(keys)
        self.present += int(np.count_nonzero(keys))
        self._stream.write(keys.tobytes())

    def cut(self, count: int) -> Cut | None:
        """The row that ends the ``count`` best; ties go to the earlier row. None when nothing passes.

        After the first call no more values can be added.
        """
        self._stream.close()
        left = min(count, self.present)
        if left == 0:
            return None
        prefix = 0
        for shift in (48, 32, 16, 0):
            counts = self._counts(prefix, shift)
            if shift == 48:
                counts[0] -= self.rows - self.present
            above = np.cumsum(counts[::-1])
            step = int(np.searchsorted(above, left))
            left -= int(above[step - 1]) if step else 0
            prefix = prefix << 16 | (_DIGITS - 1 - step)
        return Cut(from_key(prefix, self.lowest), self._position(prefix, left))

    def _counts(self, prefix: int, shift: int) -> npt.NDArray[np.int64]:
        """How many keys that begin with ``prefix`` have each next 16 bits, shape (65536,)."""
        counts = np.zeros(_DIGITS, np.int64)
        for keys in self._blocks():
            if shift < 48:
                keys = keys[keys >> np.uint64(shift + 16) == np.uint64(prefix)]
            digits = (keys >> np.uint64(shift)) & np.uint64(_DIGITS - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=_DIGITS)
        return counts

    def _position(self, key: int, nth: int) -> int:
        """Row number of the ``nth`` row (from 1) with this key."""
        start = 0
        for keys in self._blocks():
            found = np.flatnonzero(keys == np.uint64(key))
            if len(found) >= nth:
                return start + int(found[nth - 1])
            nth -= len(found)
            start += len(keys)
        raise AssertionError("the spool holds fewer rows of the cut's value than were counted")

    def _blocks(self) -> Iterator[Keys]:
        with self.path.open("rb") as stream:
            while len(block := np.fromfile(stream, np.uint64, _BLOCK)):
                yield block
