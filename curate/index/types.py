"""Which faiss index for how many vectors, as a pure function.

The steps are autofaiss's (``external/optimize.py``) without HNSW: building an HNSW graph in parallel
gives another graph each time, and it cannot be searched from a memory map.
"""

from __future__ import annotations

import math

FLAT_BELOW = 10_000
COMPRESS_FROM = 1_000_000
POINTS_PER_CENTROID = 32
"""Fewer training points than this per centroid make poor centroids."""

_PQ_SIZES = (256, 128, 64, 48, 32, 24, 16, 8, 4)


def index_type(rows: int, dim: int, train_points: int) -> str:
    """The faiss factory string for ``rows`` vectors of ``dim`` dimensions.

    * below 10,000: ``Flat``, exact, 4 * dim bytes a vector;
    * below 1,000,000: ``IVF<k>,Flat``, as many bytes (+ 8), with about 4 * sqrt(rows) lists;
    * from there: ``OPQ<m>_<d>,IVF<k>,PQ<m>x8``, m bytes a vector (+ 8), one for eight dimensions.

    The number of lists is bounded by what ``train_points`` can train.
    """
    if rows < FLAT_BELOW:
        return "Flat"
    lists = list_count(rows, train_points)
    if rows < COMPRESS_FROM:
        return f"IVF{lists},Flat"
    pieces = next((m for m in _PQ_SIZES if m * 8 <= dim and dim % m == 0), None)
    if pieces is None:
        return f"IVF{lists},Flat"
    rotated = min(dim // pieces, min(dim // pieces, 6) + 1) * pieces
    return f"OPQ{pieces}_{rotated},IVF{lists},PQ{pieces}x8"


def list_count(rows: int, train_points: int) -> int:
    """Inverted lists: a power of two, after autofaiss, bounded by the training points there are."""
    if rows < 1_000_000:
        wanted = 2 ** round(math.log2(4 * math.sqrt(rows)))
    elif rows < 10_000_000:
        wanted = 16_384
    elif rows < 300_000_000:
        wanted = 65_536
    else:
        wanted = 131_072
    trainable = max(1, min(rows, train_points) // POINTS_PER_CENTROID)
    bounded: int = min(wanted, 2 ** int(math.log2(trainable)))
    return bounded
