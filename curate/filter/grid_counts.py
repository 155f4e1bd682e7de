"""What many experiments keep of the same rows, counted batch by batch.

Experiments of a grid are alike: most rows are kept by the same few sets of points. So the rows of a batch
are first told apart by which points keep them, and then each set is counted once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.rules.logic import Mask

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LANGUAGES = 256
"""So many languages are told apart, those that come first; the others are counted as one."""

UNKNOWN, OTHER = "unknown", "other"

_SETS = 8_192
"""Sets of points that are counted at once."""

_BITS = 62
"""Points whose set is one number."""


@dataclass(frozen=True)
class Totals:
    """Sums over all rows.

    Attributes:
        rows: all of them; ``any``: those that some point keeps.
        kept: rows that each point keeps, shape (points,).
        overlap: rows that two points both keep, shape (points, points).
        values: kept rows with a value, shape (points, columns).
        sums: their sums, shape (points, columns).
        languages: language → kept rows of it, shape (points,); most frequent first.
    """

    rows: int
    any: int
    kept: Counts
    overlap: Counts
    values: Counts
    sums: Floats
    languages: dict[str, Counts]

    def means(self) -> Floats:
        """Mean of each column over the rows that a point keeps, NaN where there is none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.sums / self.values


class Counting:
    """Counts batches of rows. Memory: that of a batch, and 8 bytes for every pair of points."""

    def __init__(self, points: int, columns: int) -> None:
        self.rows = self.any = 0
        self.overlap = np.zeros((points, points), np.int64)
        self.values = np.zeros((points, columns), np.int64)
        self.sums = np.zeros((points, columns), np.float64)
        self._languages: dict[str, int] = {}
        self._spoken = np.zeros((points, LANGUAGES), np.int64)

    def add(self, kept: Mask, columns: Floats, languages: pa.ChunkedArray | None) -> None:
        """Count some rows.

        Args:
            kept: bool, shape (points, rows).
            columns: float64, shape (columns, rows); NaN where there is no value.
            languages: of each row, text; None: nothing is known.
        """
        rows = kept.shape[1]
        self.rows += rows
        spoken = None if languages is None else self._numbers(languages)
        for part, first, which in _sets(kept):
            sets = kept[:, part][:, first]
            self._add_rows(sets, which, len(first))
            for i, values in enumerate(columns):
                self._add_values(sets, which, i, values[part])
            if spoken is not None:
                self._add_languages(sets, which, spoken[part])

    def totals(self) -> Totals:
        """What there is so far."""
        spoken = {name: self._spoken[:, i] for name, i in self._languages.items()}
        ordered = sorted(spoken.items(), key=lambda item: (-int(item[1].sum()), item[0]))
        kept = np.diagonal(self.overlap).copy()
        return Totals(self.rows, self.any, kept, self.overlap, self.values, self.sums, dict(ordered))

    def _add_rows(self, sets: Mask, which: Counts, count: int) -> None:
        sizes = np.bincount(which, minlength=count)
        self.any += int(sizes[sets.any(axis=0)].sum())
        # Exact: no sum of a batch reaches 2^24.
        members = sets.astype(np.float32)
        self.overlap += ((members * sizes.astype(np.float32)) @ members.T).astype(np.int64)

    def _add_values(self, sets: Mask, which: Counts, column: int, values: Floats) -> None:
        present = ~np.isnan(values)
        if not present.all():
            which, values = which[present], values[present]
        count = sets.shape[1]
        sizes = np.bincount(which, minlength=count)
        sums = np.bincount(which, values, minlength=count)
        self.values[:, column] += np.where(sets, sizes, 0).sum(axis=1)
        # Not a product of matrices: infinity times zero is NaN. Infinities of both signs have no mean.
        with np.errstate(invalid="ignore"):
            self.sums[:, column] += np.where(sets, sums, 0.0).sum(axis=1)

    def _add_languages(self, sets: Mask, which: Counts, spoken: Counts) -> None:
        count, known = sets.shape[1], len(self._languages)
        sizes = np.bincount(which * known + spoken, minlength=count * known).reshape(count, known)
        members = sets.astype(np.float32)
        self._spoken[:, :known] += (members @ sizes.astype(np.float32)).astype(np.int64)

    def _numbers(self, languages: pa.ChunkedArray) -> Counts:
        """The number of each row's language."""
        encoded = languages.cast(pa.string()).fill_null(UNKNOWN).combine_chunks().dictionary_encode()
        numbers = [self._number(name) for name in encoded.dictionary.to_pylist()]
        return np.array(numbers, np.int64).take(np.asarray(encoded.indices))

    def _number(self, language: str) -> int:
        if language not in self._languages and len(self._languages) >= LANGUAGES - 1:
            language = OTHER
        return self._languages.setdefault(language, len(self._languages))


def _sets(kept: Mask) -> Iterator[tuple[slice, Counts, Counts]]:
    """Rows, of every set of points one row that just these keep, and the number of each row's set.

    All rows at once when they have few sets; otherwise some at a time, each with a set of its own.
    """
    rows = kept.shape[1]
    which, count = np.zeros(rows, np.int64), 1
    for start in range(0, len(kept), _BITS):
        bits = np.zeros(rows, np.int64)
        for bit, mine in enumerate(kept[start : start + _BITS]):
            bits |= mine.astype(np.int64) << bit
        mine, many = _numbered(bits)
        which, count = _numbered(which * many + mine)
        if count > _SETS:
            break
    if count <= _SETS:
        first = np.zeros(count, np.int64)
        first[which[::-1]] = np.arange(rows)[::-1]
        yield slice(0, rows), first, which
        return
    for start in range(0, rows, _SETS):
        part = slice(start, min(start + _SETS, rows))
        every = np.arange(part.stop - part.start)
        yield part, every, every


def _numbered(values: Counts) -> tuple[Counts, int]:
    """Equal numbers as equal numbers from 0 on, and how many there are."""
    encoded = pa.array(values).dictionary_encode()
    return np.asarray(encoded.indices, np.int64), len(encoded.dictionary)
