"""A bounded sample of the pool, whatever its shards are: the rows with the smallest hash of their uid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.clip.vectors import Stored
from curate.config.scorers.base import Modality
from curate.dataset.uid import halves, mix64
from curate.score.contract import OpenShard, blocks, copy_rows, finite_rows

Words = npt.NDArray[np.uint64]
BLOCK = 8192


@dataclass(frozen=True)
class Sample:
    """m rows of the pool in order of their hash.

    Attributes:
        uids: the two halves of each uid, uint64 (m, 2).
        vectors: one float16 (m, dim) for each kind of embedding that was asked for, without gaps.
    """

    uids: Words
    vectors: tuple[Stored, ...]


def draw(
    shards: Sequence[str],
    open_shard: OpenShard,
    kinds: Sequence[tuple[str, Modality]],
    size: int,
    seed: int,
) -> Sample:
    """At most ``size`` rows that have all the embeddings.

    Memory: (2 * size + 8192) vectors of each kind, whatever the size of the pool and of a shard.
    """
    kept: _SmallestHashes | None = None
    for name in shards:
        with open_shard(name) as shard:
            stored = [shard.vectors[kind] for kind in kinds]
            kept = kept or _SmallestHashes(size, [vectors.shape[1] for vectors in stored])
            for part in blocks(len(shard), BLOCK):
                uids = uid_words(shard.samples["uid"].slice(part.start, part.stop - part.start))
                kept.add(uids, hash_words(uids, seed), part.start, stored)
    return kept.sample() if kept else Sample(np.empty((0, 2), np.uint64), tuple(_empty() for _ in kinds))


def uid_words(uids: pa.Array | pa.ChunkedArray) -> Words:
    """Hex uids as their two 64-bit halves, (n, 2)."""
    pairs = halves(uids)
    return np.stack([pairs["f0"], pairs["f1"]], axis=1)


def hash_words(uids: Words, seed: int) -> Words:
    """64 well mixed bits of each uid (n, 2) and the seed: SplitMix64's finaliser over both halves."""
    start = _mixed(np.array([seed & (2**64 - 1)], np.uint64))
    return _mixed(_mixed(start ^ uids[:, 0]) + uids[:, 1])


def find(wanted: Words, among: Words) -> npt.NDArray[np.int64]:
    """Row of ``among`` (m, 2) that holds each wanted uid (n, 2), or -1. ``among`` has no uid twice."""
    if not len(among):
        return np.full(len(wanted), -1, np.int64)
    order = np.lexsort((among[:, 1], among[:, 0]))
    ordered = np.ascontiguousarray(among[order].astype(">u8")).view("S16").ravel()
    keys = np.ascontiguousarray(wanted.astype(">u8")).view("S16").ravel()
    place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.where(ordered[place] == keys, order[place], -1)


def _mixed(values: Words) -> Words:
    return mix64(values + np.uint64(0x9E3779B97F4A7C15))


def _empty() -> Stored:
    return np.empty((0, 0), np.float16)


class _SmallestHashes:
    """The rows with the smallest hashes so far, in arrays of a fixed size."""

    def __init__(self, size: int, dims: Sequence[int]) -> None:
        self.size = size
        self.rows = 0
        self.limit: np.uint64 | None = None
        self.uids = np.empty((size + BLOCK, 2), np.uint64)
        self.hashes = np.empty(size + BLOCK, np.uint64)
        self.vectors = [np.empty((size + BLOCK, dim), np.float16) for dim in dims]

    def add(self, uids: Words, hashes: Words, first: int, stored: Sequence[Stored]) -> None:
        """Rows ``first``… of a shard, at most BLOCK of them."""
        rows = np.arange(len(uids)) if self.limit is None else np.flatnonzero(hashes <= self.limit)
        read = [copy_rows(vectors, first + rows) for vectors in stored]
        known = np.logical_and.reduce([finite_rows(vectors) for vectors in read])
        rows = rows[known]
        here = slice(self.rows, self.rows + len(rows))
        self.uids[here], self.hashes[here] = uids[rows], hashes[rows]
        for mine, vectors in zip(self.vectors, read, strict=True):
            mine[here] = vectors[known]
        self.rows = here.stop
        if self.rows > self.size:
            self._drop_largest()

    def sample(self) -> Sample:
        order = self._order()
        return Sample(self.uids[order], tuple(vectors[order] for vectors in self.vectors))

    def _order(self) -> npt.NDArray[np.int64]:
        uids = self.uids[: self.rows]
        return np.lexsort((uids[:, 1], uids[:, 0], self.hashes[: self.rows]))

    def _drop_largest(self) -> None:
        """Keep ``size`` rows: what stays of the tail moves to the places that became free."""
        stays = np.zeros(self.rows, bool)
        order = self._order()[: self.size]
        stays[order] = True
        self.limit = self.hashes[order[-1]]
        free = np.flatnonzero(~stays[: self.size])
        moved = np.flatnonzero(stays[self.size :]) + self.size
        arrays: list[npt.NDArray[Any]] = [self.uids, self.hashes, *self.vectors]
        for array in arrays:
            array[free] = array[moved]
        self.rows = self.size
