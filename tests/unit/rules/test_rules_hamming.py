from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.rules.algorithms import hamming
from curate.rules.algorithms.hamming import pairs_within, survivors

Hashes = npt.NDArray[np.uint64]


def clumps(seed: int, rows: int, flips: int) -> Hashes:
    """Hashes of which many are a few bits from each other."""
    draw = np.random.default_rng(seed)
    hashes = draw.choice(draw.integers(0, 2**64, 5, dtype=np.uint64), rows)
    for _ in range(flips):
        hashes = hashes ^ (np.uint64(1) << draw.integers(0, 64, rows).astype(np.uint64))
    return hashes


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 6), st.integers(0, 16))
def test_every_near_pair_is_found_once(seed: int, rows: int, flips: int, distance: int) -> None:
    hashes = np.unique(clumps(seed, rows, flips)) if rows else np.empty(0, np.uint64)
    found = [
        (a, b) for i, j in pairs_within(hashes, distance) for a, b in zip(i.tolist(), j.tolist(), strict=True)
    ]
    values = hashes.tolist()
    near = {
        (a, b)
        for a, b in itertools.combinations(range(len(values)), 2)
        if (values[a] ^ values[b]).bit_count() <= distance
    }
    assert len(found) == len(set(found))
    assert set(found) == near


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 50), st.integers(0, 6), st.integers(0, 8))
def test_what_stays_is_what_a_walk_from_the_best_row_keeps(
    seed: int, rows: int, flips: int, distance: int
) -> None:
    hashes = clumps(seed, rows, flips)
    order = np.random.default_rng(seed).permutation(rows)
    values, kept = hashes.tolist(), []
    expected = list(range(rows))
    for row in order.tolist():
        near = [k for k in kept if (values[k] ^ values[row]).bit_count() <= distance]
        if near:
            expected[row] = near[0]
        else:
            kept.append(row)
    assert survivors(hashes, order, distance, "place").tolist() == expected


def test_a_clump_that_does_not_fit_in_a_block_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.arange(64, dtype=np.uint64)
    whole = sorted((a, b) for i, j in pairs_within(hashes, 6) for a, b in zip(i, j, strict=True))
    monkeypatch.setattr(hamming, "_BLOCK", 10)
    parts = sorted((a, b) for i, j in pairs_within(hashes, 6) for a, b in zip(i, j, strict=True))
    assert parts == whole
    assert len(whole) == 64 * 63 // 2


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "MAX_PAIRS", 100)
    with pytest.raises(UserError, match=r"rules\.n: more than 100 pairs .* lower the distance"):
        survivors(np.arange(64, dtype=np.uint64), np.arange(64), 6, "rules.n")


def test_of_a_chain_the_ends_stay() -> None:
    # 0 - 1 - 3 - 7: neighbours differ in one bit, the ends in three.
    stay = survivors(np.array([0, 1, 3, 7], np.uint64), np.arange(4), 1, "place")
    assert stay.tolist() == [0, 0, 2, 2]
