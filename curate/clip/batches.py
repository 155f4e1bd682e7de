"""How many rows go through a model at once."""

from __future__ import annotations

from collections.abc import Iterator

LEAST = 8
"""Rows of the smallest forward pass: below this, rounding on CPUs depends on the number of rows."""


def pieces(rows: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Cut rows into forward passes: (start, stop, rows to fill up to).

    Whole batches first; the rest goes in ever smaller powers of two, so that a model sees few
    different shapes, no more than ``LEAST`` - 1 rows are filling, and a shard's numbers depend on
    that shard alone.
    """
    at = 0
    while rows - at >= size:
        yield at, at + size, size
        at += size
    step = 1 << max(size - 1, 1).bit_length() - 1 if size > 1 else 1
    while at < rows:
        if rows - at >= step:
            yield at, at + step, step
            at += step
        elif step <= LEAST:
            yield at, rows, step
            at = rows
        else:
            step //= 2
