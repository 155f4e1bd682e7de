"""Statistics in one pass over shards, in memory that does not grow with the dataset."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
BINS = 44


@dataclass
class Histogram:
    """Kept and dropped samples by the value of a column.

    Attributes:
        edges: float64, shape (bins + 1,), ascending; values beyond them count in the outer bins.
        log: whether the edges are evenly spaced on a logarithmic scale.
        counts: int64, shape (2, bins): dropped, kept.
        missing: samples without a value: dropped, kept.
    """

    edges: Floats
    log: bool = False
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 0), np.int64))
    missing: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    outside: int = 0

    def __post_init__(self) -> None:
        self.counts = np.zeros((2, len(self.edges) - 1), np.int64)

    def add(self, values: Floats, kept: Mask) -> None:
        """Count rows; NaN is a missing value."""
        there = np.isfinite(values)
        for side, rows in enumerate((~kept, kept)):
            self.missing[side] += int((rows & ~there).sum())
            part = values[rows & there]
            self.outside += int(((part < self.edges[0]) | (part > self.edges[-1])).sum())
            clipped = np.clip(part, self.edges[0], self.edges[-1])
            self.counts[side] += np.histogram(clipped, self.edges)[0]


def edges_for(
    values: Floats, cuts: Sequence[float], whole: bool = False, bins: int = BINS
) -> tuple[Floats, bool]:
    """Bin edges that show nearly all values and every cut.

    Args:
        values: a sample of the column, float64, NaN for missing.
        cuts: thresholds that must lie inside.
        whole: the column holds whole numbers: no bin is narrower than one.

    Returns:
        Ascending edges, float64, and whether they are logarithmic: so for positive values that spread
        over more than two decades.
    """
    values = values[np.isfinite(values)]
    inside = [c for c in cuts if np.isfinite(c)]
    if not len(values):
        low, high = (min(inside), max(inside)) if inside else (0.0, 1.0)
    else:
        low, high = (float(q) for q in np.quantile(values, (0.002, 0.998)))
    low, high = min([low, *inside]), max([high, *inside])
    if low > 0 and high / low > 100:
        return np.geomspace(low, high, bins + 1), True
    if whole:
        low, high = np.floor(low) - 0.5, np.ceil(high) + 0.5
        step = max(1, int(np.ceil((high - low) / bins)))
        return np.arange(low, high + step, step, dtype=np.float64), False
    if low == high:
        low, high = low - 0.5, high + 0.5
    margin = (high - low) * 0.02
    return np.linspace(low - margin, high + margin, bins + 1), False


class Groups:
    """Samples and kept samples per name, exact until there are more than ``capacity`` names.

    From then on rare names are forgotten (and said to be: ``pruned``); counts of frequent names are
    then lower bounds, short by at most what was forgotten of them.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self.capacity = capacity
        self.samples: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.pruned = False

    def add(self, names: pa.ChunkedArray | pa.Array, kept: Mask) -> None:
        """Count rows; a NULL name is not counted."""
        for counter, rows in ((self.samples, names), (self.kept, names.filter(pa.array(kept)))):
            for entry in pc.value_counts(rows).to_pylist():
                if entry["values"] is not None:
                    counter[entry["values"]] += entry["counts"]
        if len(self.samples) > self.capacity:
            self.pruned = True
            best = heapq.nlargest(
                self.capacity // 2, self.samples.items(), key=lambda item: (item[1], item[0])
            )
            self.samples = Counter(dict(best))
            self.kept = Counter({n: k for n, k in self.kept.items() if n in self.samples})

    def top(self, n: int) -> list[tuple[str, int, int]]:
        """The n most frequent names: name, samples, kept."""
        best = heapq.nsmallest(n, self.samples.items(), key=lambda item: (-item[1], item[0]))
        return [(name, count, self.kept[name]) for name, count in best]


_HOST = r"(?i)^https?:[/\\]*(?:[^/?#\\]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:@\\]+)"


def hosts(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lower-case host of every http(s) URL without a leading ``www.``; NULL for all else."""
    found = pc.struct_field(pc.extract_regex(urls, _HOST), "host")
    return pc.replace_substring_regex(pc.utf8_lower(found), r"^www\.", "")
