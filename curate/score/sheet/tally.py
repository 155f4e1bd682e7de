"""How often each value of a text or boolean column occurs, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

CAPACITY = 4_096
"""Different values that are told apart: the first ones of the pool, which lies in random order."""

LONGEST = 200
"""Characters; longer values are nobody's categories and are not told apart."""


@dataclass
class Tally:
    """Values in order of their first occurrence, and the rows of each.

    Attributes:
        codes: value → its number.
        counts: rows of each numbered value.
        others: rows of values that are too long or came after ``capacity`` others.
    """

    capacity: int = CAPACITY
    codes: dict[str, int] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    others: int = 0

    def add(self, values: pa.ChunkedArray) -> npt.NDArray[np.float64]:
        """Count rows.

        Returns:
            The number of each row's value, float64 (n,); -1 for others, NaN for null.
        """
        encoded = pc.cast(values, pa.string()).combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        numbers = np.array([self._code(v) for v in encoded.dictionary.to_pylist()] + [np.nan], np.float64)
        indices = np.asarray(encoded.indices.fill_null(len(numbers) - 1), np.int64)
        found = numbers[indices]
        known = found[found >= 0].astype(np.int64)
        for code, count in enumerate(np.bincount(known, minlength=len(self.counts)).tolist()):
            self.counts[code] += count
        self.others += int((found == -1).sum())
        return found

    def top(self, n: int) -> list[tuple[str, int, int]]:
        """The most frequent values: value, number, rows; equal ones by value."""
        order = sorted(self.codes.items(), key=lambda item: (-self.counts[item[1]], item[0]))
        return [(value, code, self.counts[code]) for value, code in order[:n]]

    def _code(self, value: str) -> int:
        if value not in self.codes:
            if len(value) > LONGEST or len(self.codes) >= self.capacity:
                return -1
            self.codes[value] = len(self.codes)
            self.counts.append(0)
        return self.codes[value]
