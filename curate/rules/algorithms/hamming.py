"""All pairs of 64-bit hashes within a Hamming distance, and which rows to keep of them. Exact.

Cut 64 bits into m pieces: hashes that differ in at most d bits agree in at least m - d of them. So for
each choice of m - d pieces the hashes are sorted by these, and only those that agree are compared
(multi-index hashing, Norouzi, Punjani, Fleet: Fast exact search in Hamming space, 2014).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import comb

import numpy as np
import numpy.typing as npt

from curate.errors import UserError

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_BLOCK = 1 << 22
"""Pairs that are compared at once."""

MAX_PAIRS = 1 << 28
"""Pairs that are held, 8 bytes each."""


def pairs_within(hashes: Hashes, distance: int) -> Iterator[tuple[Places, Places]]:
    """Every pair ``i < j`` of different hashes that differ in at most ``distance`` bits, once.

    Args:
        hashes: different values, uint64, shape (n,).

    Yields:
        Arrays of i and of j.
    """
    if distance == 0 or len(hashes) < 2:
        return
    pieces = _pieces(len(hashes), distance)
    edges = [64 * i // pieces for i in range(pieces + 1)]
    masks = [((1 << b) - (1 << a)) for a, b in itertools.pairwise(edges)]
    choices = list(itertools.combinations(range(pieces), pieces - distance))
    for choice in choices:
        mask = np.uint64(sum(masks[p] for p in choice))
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        for first, second in _equal_pairs(keys[order]):
            i, j = order[first], order[second]
            differs = hashes[i] ^ hashes[j]
            close = np.bitwise_count(differs) <= distance
            i, j, differs = i[close], j[close], differs[close]
            # A pair that agrees in more pieces is found by several choices: it counts at the first.
            mine = _first_agreeing(differs, masks, pieces - distance) == mask
            i, j = i[mine], j[mine]
            yield np.minimum(i, j), np.maximum(i, j)


def _pieces(rows: int, distance: int) -> int:
    """How many pieces cost least: sorting the rows once for each choice, and comparing what agrees."""

    def cost(pieces: int) -> float:
        bits = 64 * (pieces - distance) / pieces
        return float(comb(pieces, distance) * rows * (40.0 + rows / 2.0**bits))

    return min(range(distance + 1, distance + 6), key=cost)


def _equal_pairs(keys: Hashes) -> Iterator[tuple[Places, Places]]:
    """Pairs of places in a sorted array that hold the same key, about ``_BLOCK`` at a time."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sizes = np.diff(np.append(starts, len(keys)))
    # How many come after each place in its run.
    after = np.repeat(starts + sizes, sizes) - np.arange(len(keys)) - 1
    ends = np.cumsum(after)
    start = 0
    while start < len(keys):
        done = int(ends[start - 1]) if start else 0
        end = max(int(np.searchsorted(ends, done + _BLOCK, "right")), start + 1)
        mine = after[start:end]
        first = np.repeat(np.arange(start, end), mine)
        within = np.arange(len(first)) - np.repeat(np.cumsum(mine) - mine, mine)
        if len(first):
            yield first, first + 1 + within
        start = end


def _first_agreeing(differs: Hashes, masks: list[int], count: int) -> Hashes:
    """The mask of the first ``count`` pieces in which two hashes agree."""
    found = np.zeros(len(differs), np.uint64)
    agreed = np.zeros(len(differs), np.int64)
    for mask in masks:
        agrees = ((differs & np.uint64(mask)) == 0) & (agreed < count)
        found[agrees] |= np.uint64(mask)
        agreed += agrees
    return found


def survivors(hashes: Hashes, order: Places, distance: int, place: str) -> Places:
    """For each row the row that stays in its place: itself, or the best one that it is near to.

    In the given order a row stays unless a row that stays already is within the distance. So no two
    that stay are near each other, and each that goes is near to one that stays.

    Args:
        hashes: uint64, shape (n,).
        order: the rows from the best to the worst.

    Returns:
        int64, shape (n,). Memory: about 60 bytes a row, 40 a pair of different hashes that are near.

    Raises:
        UserError: more than ``MAX_PAIRS`` pairs of different hashes are near.
    """
    ranked = hashes[order]
    different, first, which = np.unique(ranked, return_index=True, return_inverse=True)
    # Equal hashes are near to the same rows: the best of them stands for all. By rank, not by value.
    by_rank = np.argsort(first)
    stays = _stays(different[by_rank], distance, place)
    rank_of = np.empty(len(by_rank), np.int64)
    rank_of[by_rank] = np.arange(len(by_rank))
    best = order[first[by_rank]]
    found = np.empty(len(hashes), np.int64)
    found[order] = best[stays[rank_of[which]]]
    return found


def _stays(hashes: Hashes, distance: int, place: str) -> Places:
    """See ``survivors``; the hashes differ and come from the best to the worst, places are in this order."""
    rows = len(hashes)
    first, second = _collected(hashes, distance, place)
    kept = np.ones(rows, bool)
    kept[second] = False
    undecided = ~kept
    while undecided.any():
        # What is near to a row that stays, goes.
        undecided[second[kept[first]]] = False
        # What no undecided row before it is near to, stays.
        stays = undecided.copy()
        stays[second[undecided[first]]] = False
        kept |= stays
        undecided &= ~stays
    found = np.arange(rows)
    gone = kept[first] & ~kept[second]
    np.minimum.at(found, second[gone], first[gone])
    return found


def _collected(hashes: Hashes, distance: int, place: str) -> tuple[Places, Places]:
    total, parts = 0, []
    for i, j in pairs_within(hashes, distance):
        total += len(i)
        if total > MAX_PAIRS:
            raise UserError(
                f"{place}: more than {MAX_PAIRS:,} pairs of different hashes differ in at most {distance} "
                "bits; lower the distance, or drop what all look alike (a score of detail) before"
            )
        parts.append(np.stack([i, j]).astype(np.int32))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first, second = np.concatenate(parts, axis=1)
    return first, second
