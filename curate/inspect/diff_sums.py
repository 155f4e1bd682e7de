"""What is gathered of a group of samples while their shards go by, in memory that does not grow with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.samples.moments import Moments

VALUES = 4_096
"""Different languages that are counted exactly; of a column with more, the rarer half is let go."""

UNKNOWN = "unknown"


def effect(a: Moments, b: Moments) -> float | None:
    """Difference of the means of two groups over their pooled standard deviation (Cohen's d).

    Returns:
        Positive when ``a`` has the larger mean. None when a group has no value; infinite when all values
        of each group are the same and those of the two are not.
    """
    if not a.count or not b.count:
        return None
    apart, size = a.mean - b.mean, max(abs(a.mean), abs(b.mean))
    if abs(apart) <= 1e-12 * size:
        return 0.0
    deviation = math.sqrt((a.squares + b.squares) / max(1, a.count + b.count - 2))
    return math.copysign(math.inf, apart) if deviation <= 1e-9 * size else apart / deviation


class Gathering:
    """Sums over the shards of one group, and some of its rows, drawn by uid."""

    def __init__(self, examples: int) -> None:
        self.samples = 0
        self.moments: dict[str, Moments] = {}
        self.languages: Counter[str] = Counter()
        self.most = examples
        self.drawn: pa.Table | None = None

    def add(self, table: pa.Table, numbers: Sequence[str], language: str | None) -> None:
        """Take in more rows of the group.

        Args:
            table: ``uid``, the columns named, and whatever the drawn rows should have.
            numbers: columns to sum.
            language: column to count.
        """
        if not table.num_rows:
            return
        self.samples += table.num_rows
        for name in numbers:
            values = table[name].cast(pa.float64(), safe=False).drop_null()
            self.moments.setdefault(name, Moments()).add(np.asarray(values, np.float64))
        if language is not None:
            for entry in pc.value_counts(table[language].combine_chunks()).to_pylist():
                self.languages[str(entry["values"] or UNKNOWN)] += entry["counts"]
            if len(self.languages) > VALUES:
                self.languages = Counter(dict(self.languages.most_common(VALUES // 2)))
        if self.most:
            self._draw(table)

    def rows(self) -> list[pa.Table]:
        """The drawn rows, a table of one row each, in the order of the draw."""
        return [] if self.drawn is None else [self.drawn.slice(i, 1) for i in range(self.drawn.num_rows)]

    def _draw(self, table: pa.Table) -> None:
        # A uid read backwards is as good as a draw, and no shard's own: shards are ranges of the front.
        table = table.append_column("_draw", pc.ascii_reverse(table["uid"]))
        if self.drawn is not None:
            if self.drawn.num_rows == self.most:
                table = table.filter(pc.less(table["_draw"], self.drawn["_draw"][-1]))
            table = pa.concat_tables([self.drawn, table])
        order = pc.select_k_unstable(table, k=self.most, sort_keys=[("_draw", "ascending")])
        # A slice would keep the columns of its whole batch in memory; what is taken is a copy.
        self.drawn = table.take(order).combine_chunks()
