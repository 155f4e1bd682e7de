from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from curate.rules.algorithms.caps import hard_cap, soft_cap

Floats = npt.NDArray[np.float64]
ROWS, TRIALS = 20, 1500
SCORES = np.random.default_rng(7).normal(0, 1.5, ROWS)


def softmax(scores: Floats) -> Floats:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def published_soft_cap(
    scores: Floats, draws: int, alpha: float, batch: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """As the paper's notebook has it: a softmax over the whole pool for each group."""
    scores, counts, left = scores.copy(), np.zeros(len(scores), np.int64), draws
    while left:
        drawn = rng.choice(len(scores), min(batch, len(scores), left), replace=False, p=softmax(scores))
        counts[drawn] += 1
        scores[drawn] -= alpha
        left -= len(drawn)
    return counts


def published_hard_cap(
    scores: Floats, draws: int, at_most: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """One draw after the other; a row that has had its copies is drawn in vain."""
    counts, p = np.zeros(len(scores), np.int64), softmax(scores)
    while counts.sum() < draws:
        row = rng.choice(len(scores), p=p)
        counts[row] += counts[row] < at_most
    return counts


def mean_square_z(mine: Callable[[int], npt.NDArray[np.int32]], theirs: Callable[[int], Floats]) -> float:
    """About 1 when both draw each row equally often; its spread over 20 rows is about 0.3."""
    a = np.array([mine(t) for t in range(TRIALS)], np.float64)
    b = np.array([theirs(t) for t in range(TRIALS)], np.float64)
    return float(((a.mean(0) - b.mean(0)) ** 2 / ((a.var(0) + b.var(0)) / TRIALS)).mean())


def words(trial: int, rows: int = ROWS) -> npt.NDArray[np.uint64]:
    return np.random.default_rng([1, trial]).integers(0, 2**64, rows, dtype=np.uint64)


@pytest.mark.parametrize(("draws", "batch", "alpha"), [(30, 4, 0.4), (9, 1, 0.15), (50, 15, 1.0)])
def test_soft_cap_draws_as_the_published_sampler_does(draws: int, batch: int, alpha: float) -> None:
    z = mean_square_z(
        lambda t: soft_cap(SCORES, words(t), draws, alpha, batch),
        lambda t: published_soft_cap(SCORES, draws, alpha, batch, np.random.default_rng([2, t])),
    )
    assert z < 2.2
    counts = soft_cap(SCORES, words(0), draws, alpha, batch)
    assert counts.sum() == draws
    assert counts.max() <= -(-draws // batch)


def test_hard_cap_draws_as_a_sampler_that_stops_at_a_count() -> None:
    z = mean_square_z(
        lambda t: hard_cap(SCORES, words(t), 24, 4),
        lambda t: published_hard_cap(SCORES, 24, 4, np.random.default_rng([2, t])),
    )
    assert z < 2.2


def test_another_sampler_would_be_noticed() -> None:
    z = mean_square_z(
        lambda t: soft_cap(SCORES, words(t), 30, 0.5, 4),
        lambda t: published_soft_cap(SCORES, 30, 0.4, 4, np.random.default_rng([2, t])),
    )
    assert z > 2.2


def test_published_shape_of_a_large_draw() -> None:
    """The published notes' figures for N(0, 2.5), one draw a row, groups of 100: 37,645 different rows."""
    scores = np.random.default_rng(0).normal(0, 2.5, 128_000)
    counts = soft_cap(scores, words(0, 128_000), 128_000, 0.15, 100)
    assert counts.sum() == 128_000
    assert abs(np.count_nonzero(counts) - 37_645) < 500


def test_a_window_of_rows_is_as_good_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(3).normal(0, 3, 500)
    few = soft_cap(scores, words(5, 500), 3000, 0.2, 7)
    monkeypatch.setattr("curate.rules.algorithms.caps._ROUNDS_AHEAD", 1000)
    assert soft_cap(scores, words(5, 500), 3000, 0.2, 7).tolist() == few.tolist()


@pytest.mark.parametrize("spread", [0.0, 800.0, 5000.0])
def test_scores_of_any_range(spread: float) -> None:
    scores = np.linspace(-spread, spread, 50)
    assert soft_cap(scores, words(0, 50), 200, 0.15, 10).sum() == 200
    counts = hard_cap(scores, words(0, 50), 200, 5)
    assert (counts.sum(), counts.max()) == (200, 5)


def test_ends() -> None:
    none = np.empty(0)
    assert soft_cap(none, np.empty(0, np.uint64), 10, 0.1, 3).tolist() == []
    assert soft_cap(np.zeros(3), words(0, 3), 7, 0.1, 100).tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])
    assert sorted(soft_cap(np.zeros(3), words(0, 3), 10**9, 0.1, 3).tolist())[:2] == [333333333] * 2
    assert hard_cap(none, np.empty(0, np.uint64), 10, 2).tolist() == []
    assert hard_cap(np.zeros(3), words(0, 3), 100, 2).tolist() == [2, 2, 2]
