from __future__ import annotations

import math
import struct
from decimal import Decimal
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.rules.algorithms import spool as spools
from curate.rules.algorithms.spool import MISSING, LastRow, Spool, from_key, rows_of_fraction, to_keys

FLOATS = st.floats(allow_nan=False)
FEW = st.sampled_from([0.0, -0.0, 0.25, -0.25, 1.0, math.inf, -math.inf, 5e-324, math.nan])


@given(st.lists(st.one_of(FLOATS, FEW), max_size=20), st.booleans())
def test_keys_sort_like_floats(values: list[float], lowest: bool) -> None:
    keys = to_keys(np.array(values, np.float64), lowest).tolist()
    for a, x in zip(keys, values, strict=True):
        assert (a == MISSING) == math.isnan(x)
        if not math.isnan(x):
            assert from_key(a, lowest) == x
            assert struct.pack("d", from_key(a, lowest)) == struct.pack("d", x + 0.0)
        for b, y in zip(keys, values, strict=True):
            if not math.isnan(x) and not math.isnan(y):
                assert (a > b) == (x < y if lowest else x > y)


def last_of(best: list[tuple[float, int]], lowest: bool) -> LastRow:
    """The cut behind rows that are in order, as value (of the other sign unless lowest) and place."""
    value, position = best[-1]
    return LastRow(value if lowest else -value, position, sum(v == value for v, _ in best))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.lists(st.one_of(FEW, FLOATS), max_size=12), max_size=4),
    st.integers(0, 60),
    st.booleans(),
)
def test_the_cut_is_the_kth_row(tmp_path: Path, parts: list[list[float]], count: int, lowest: bool) -> None:
    spool = Spool(tmp_path / "spool", lowest)
    for part in parts:
        spool.add(np.array(part, np.float64))
    rows = [(-x if not lowest else x, i) for i, x in enumerate(x for p in parts for x in p) if x == x]
    best = sorted(rows)[:count]
    cut = spool.cut(count)
    if not best:
        assert cut is None
    else:
        assert cut == last_of(best, lowest)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.one_of(FEW, FLOATS), max_size=30),
    st.lists(st.integers(0, 40), max_size=20),
    st.booleans(),
    st.sampled_from([1, 3, 64]),
    st.sampled_from([-1, 4, 1 << 22]),
)
def test_many_cuts_are_what_each_is_alone(
    tmp_path: Path, values: list[float], counts: list[int], lowest: bool, at_once: int, near: int
) -> None:
    spool = Spool(tmp_path / "spool", lowest)
    spool.add(np.array(values, np.float64))
    with mock.patch.object(spools, "_AT_ONCE", at_once), mock.patch.object(spools, "_NEAR", near):
        found = spool.cuts(counts)
    rows = sorted((x if lowest else -x, i) for i, x in enumerate(values) if x == x)
    for count in counts:
        best = rows[:count]
        assert found[count] == (last_of(best, lowest) if best else None)
    assert set(found) == set(counts)


@pytest.mark.parametrize(("seed", "distinct"), [(0, 3), (1, 70_000), (2, 10**9)])
def test_the_cut_of_many_blocks(tmp_path: Path, seed: int, distinct: int) -> None:
    values = np.random.default_rng(seed).integers(0, distinct, 2_500_000) / 7.0
    spool = Spool(tmp_path / "spool", lowest=False)
    for part in np.array_split(values, 7):
        spool.add(part)
    order = np.lexsort((np.arange(len(values)), -values))
    ranked = values[order]
    counts = [1, 2, 812_345, *range(25_000, 2_600_000, 25_000)]
    found = spool.cuts(counts)
    for count in counts:
        last = min(count, len(order)) - 1
        before = int(np.searchsorted(-ranked, -ranked[last]))
        assert found[count] == LastRow(ranked[last], int(order[last]), last - before + 1)
    assert spool.cut(812_345) == found[812_345]


@given(st.integers(0, 10**9), st.floats(1e-6, 1.0))
def test_rows_of_a_fraction_are_those_of_the_number_as_written(rows: int, fraction: float) -> None:
    assert rows_of_fraction(fraction, rows) == int(Decimal(repr(fraction)) * rows)


def test_rows_of_a_fraction() -> None:
    assert int(100 * 0.29) == 28  # what binary arithmetic makes of it
    assert rows_of_fraction(0.29, 100) == 29
    assert rows_of_fraction(1.0, 12_800_000) == 12_800_000
    assert rows_of_fraction(0.3, 12_800_000) == 3_840_000
    assert rows_of_fraction(0.3, 3) == 0
