"""Which rows of which input shards make an output shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Piece:
    """Rows ``[start, stop)`` of an input shard's selection, counted with repeats, in uid order."""

    shard: str
    start: int
    stop: int


def cut(shards: Sequence[str], totals: npt.NDArray[np.int64], shard_size: int) -> Iterator[tuple[Piece, ...]]:
    """Cut a selection into output shards of ``shard_size`` consecutive rows; the last may be shorter.

    Args:
        shards: names of the input shards, in uid order.
        totals: int64, shape (len(shards),): selected rows of each, repeats counted.
        shard_size: rows of an output shard, at least 1.

    Yields:
        One tuple of pieces per output shard. Input shards without selected rows are in none.
    """
    ends = np.cumsum(totals)
    rows = int(ends[-1]) if len(ends) else 0
    for first in range(0, rows, shard_size):
        last = min(first + shard_size, rows)
        i = int(np.searchsorted(ends, first, side="right"))
        pieces = []
        while i < len(ends) and (begin := int(ends[i] - totals[i])) < last:
            if totals[i]:
                pieces.append(Piece(shards[i], max(first - begin, 0), min(last, int(ends[i])) - begin))
            i += 1
        yield tuple(pieces)
