"""Sampling with repeats: soft cap and hard cap (FLYT, arXiv 2503.08805, and its examples.ipynb).

Both are written there as draws from a softmax over the whole pool, again and again. Here every row has a
clock that rings after an exponentially distributed time, the sooner the greater its weight exp(score):
the order in which they ring is the order of draws by these weights, and since an exponential clock has
no memory, one that has not rung need not be wound up again for the next round. So a round touches the
rows that ring, not the pool, and the distribution of what is drawn is the same. Times are kept as
logarithms: scores of any range do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from curate.rules.algorithms.draws import Words, exponentials

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]

_ROUNDS_AHEAD = 12
"""Rows that may ring within so many rounds are looked at in one go."""

_BLOCK = 1 << 20


def soft_cap(scores: Floats, words: Words, draws: int, alpha: float, batch: int) -> Counts:
    """How often each row is drawn.

    Round by round, ``batch`` different rows are drawn by softmax of the scores, and each of them loses
    ``alpha``, until there are as many draws as asked for (the last round is smaller). A round cannot
    draw more rows than there are.

    Args:
        scores: finite logits, float64, shape (n,).
        words: 64 random bits of each row, shape (n,).

    Returns:
        int32, shape (n,). Memory: 30 bytes a row besides the arguments.
    """
    rows = len(scores)
    # Rounds that draw every row are all alike.
    whole = draws // rows if 0 < rows <= batch else 0
    counts = np.full(rows, whole, np.int32)
    left = draws - whole * rows if rows else 0
    rings = _first_rings(scores - alpha * whole, words, whole)
    while left:
        near, others = _near(rings, min(batch, rows, left) * _ROUNDS_AHEAD)
        times = rings[near]
        while left:
            place = _first(times, min(batch, rows, left))
            now = float(times[place].max())
            if now >= others:
                break  # a row that is not looked at may ring before these
            drawn = near[place]
            counts[drawn] += 1
            weights = scores[drawn] - alpha * counts[drawn]
            wait = np.log(exponentials(words[drawn], counts[drawn])) - weights
            times[place] = np.logaddexp(now, wait)
            left -= len(place)
        rings[near] = times
    return counts


def hard_cap(scores: Floats, words: Words, draws: int, at_most: int) -> Counts:
    """How often each row is drawn with replacement by softmax, when a row is out after ``at_most`` draws.

    Args:
        scores: finite logits, float64, shape (n,).
        words: 64 random bits of each row, shape (n,).

    Returns:
        int32, shape (n,). Memory: 16 bytes a row and 20 a draw, besides the arguments.
    """
    rows = len(scores)
    if draws >= rows * at_most:
        return np.full(rows, at_most, np.int32)
    until = _time_of(scores, draws * 1.02 + 10 * draws**0.5, at_most)
    while True:
        times, places = _rings_until(scores, words, until, at_most)
        if len(times) >= draws:
            break
        until += np.log(2)
    taken = places[_first(times, draws)]
    return np.bincount(taken, minlength=rows).astype(np.int32)


def _first_rings(scores: Floats, words: Words, draw: int = 0) -> Floats:
    rings = np.empty(len(scores))
    for start in range(0, len(scores), _BLOCK):
        part = slice(start, start + _BLOCK)
        rings[part] = np.log(exponentials(words[part], draw)) - scores[part]
    return rings


def _near(rings: Floats, count: int) -> tuple[Places, float]:
    """Rows that ring first, more than ``count`` if there are so many, and when the next one does."""
    if count >= len(rings):
        return np.arange(len(rings)), np.inf
    bound = np.partition(rings, count)[count]
    return np.flatnonzero(rings <= bound), float(np.min(rings, where=rings > bound, initial=np.inf))


def _first(times: Floats, size: int) -> Places:
    """Places of the ``size`` first; of equal times, which precision makes, those that stand first."""
    if size >= len(times):
        return np.arange(len(times))
    bound = np.partition(times, size - 1)[size - 1]
    before = np.flatnonzero(times < bound)
    return np.concatenate([before, np.flatnonzero(times == bound)[: size - len(before)]])


def _time_of(scores: Floats, draws: float, at_most: int) -> float:
    """Logarithm of a time in which about so many draws happen: sum of min(at_most, weight * time)."""
    low, high = -float(scores.max()) - 50, -float(scores.min()) + 50
    while high - low > 0.01:
        middle = (low + high) / 2
        expected = np.exp(np.minimum(scores + middle, np.log(at_most))).sum()
        low, high = (middle, high) if expected < draws else (low, middle)
    return high


def _rings_until(scores: Floats, words: Words, until: float, at_most: int) -> tuple[Floats, Places]:
    """Times and rows of all rings up to a time, of each row the first ``at_most``."""
    times, places = [], []
    rung, rows = _first_rings(scores, words), np.arange(len(scores))
    for draw in range(1, at_most + 1):
        early = rung <= until
        rung, rows = rung[early], rows[early]
        times.append(rung)
        places.append(rows)
        if draw < at_most and len(rows):
            wait = np.log(exponentials(words[rows], draw)) - scores[rows]
            rung = np.logaddexp(rung, wait)
    return np.concatenate(times), np.concatenate(places)
