"""Recall against exact search, in bounded memory: the exact answers grow shard by shard."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from curate.clip.vectors import Vectors

Rows = npt.NDArray[np.int64]

CHUNK = 8192
"""Vectors compared at once."""
KEPT = 64
"""Exact neighbours kept per query: ten, and room for equals of the tenth."""
EQUAL = 1e-6
"""Similarities this close are equal: copies of a vector are equally good answers."""


class Exact:
    """The best rows of every query so far. Memory: 25 bytes * queries * ``CHUNK``, 100 MB for 512 queries.

    Args:
        queries: unit vectors, float32 (q, dim).
        own: row of each query in the index, int64 (q,), left out of its own answers; -1 for none.
    """

    def __init__(self, queries: Vectors, own: Rows) -> None:
        self.queries = queries
        self.own = own
        self.scores = np.full((len(queries), 0), -np.inf, np.float32)
        self.rows = np.full((len(queries), 0), -1, np.int64)

    def add(self, first: int, vectors: Vectors) -> None:
        """Take in the rows ``first, first + 1, …``, float32 (n, dim)."""
        for start in range(0, len(vectors), CHUNK):
            self._add(first + start, vectors[start : start + CHUNK])

    def _add(self, first: int, vectors: Vectors) -> None:
        scores = self.queries @ vectors.T
        own = self.own - first
        inside = np.flatnonzero((own >= 0) & (own < len(vectors)))
        scores[inside, own[inside]] = -np.inf
        rows = np.broadcast_to(np.arange(first, first + len(vectors)), scores.shape)
        scores = np.concatenate([self.scores, scores], axis=1)
        rows = np.concatenate([self.rows, rows], axis=1)
        keep = min(KEPT, scores.shape[1])
        best = np.argpartition(-scores, keep - 1, axis=1)[:, :keep]
        self.scores = np.take_along_axis(scores, best, axis=1)
        self.rows = np.take_along_axis(rows, best, axis=1)

    def recall(self, found: Rows, k: int) -> float:
        """Share of the k best answers that ``found`` (q, >= k + 1) has among its first k.

        A found row counts when its similarity is at least that of the k-th best; a query's own row is
        left out of both sides.
        """
        hits = wanted = 0
        for scores, rows, own, candidates in zip(self.scores, self.rows, self.own, found, strict=True):
            finite = np.isfinite(scores)
            size = min(k, int(finite.sum()))
            if size == 0:
                continue
            limit = -np.partition(-scores[finite], size - 1)[size - 1] - EQUAL
            good = rows[finite & (scores >= limit)]
            given = candidates[(candidates >= 0) & (candidates != own)][:size]
            hits += min(size, int(np.isin(given, good).sum()))
            wanted += size
        return hits / wanted if wanted else 1.0
