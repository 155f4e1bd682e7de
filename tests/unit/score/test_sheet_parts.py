from __future__ import annotations

import itertools

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset.uid import uid_of
from curate.pages.pictures import thumbnail
from curate.pages.words import number
from curate.score.sheet.choose import pick
from curate.score.sheet.draw import Axis, axis_of, bars, heights, marks
from curate.score.sheet.measure import QUANTILES, bands, bins, grid, literal, quantiles
from curate.score.sheet.render import identifier, key, percent, rule
from curate.score.sheet.sample import RowSampler
from curate.score.sheet.scan import doubles
from curate.score.sheet.tally import Tally

finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)


def uids(count: int) -> list[str]:
    return sorted(uid_of(str(i), "") for i in range(count))


def sampled(names: list[str], cuts: list[int], limit: int) -> tuple[list[str], np.ndarray, int]:
    """The uids that a sample takes of a pool cut into shards, and their values."""
    sample = RowSampler(["v"], limit)
    values = np.arange(len(names), dtype=np.float64)
    parts = list(zip([0, *cuts], [*cuts, len(names)], strict=True))
    for number_, (a, b) in enumerate(parts):
        sample.add(number_, pa.array(names[a:b], pa.string()), {"v": values[a:b]})
    sampled = sample.sampled_rows()
    back = [names[parts[s][0] + r] for s, r in zip(sampled.shard.tolist(), sampled.row.tolist(), strict=True)]
    return back, sampled.values["v"], sampled.rows


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 300), max_size=6).map(sorted), st.integers(1, 320))
def test_a_sample_is_the_same_however_the_pool_is_cut(cuts: list[int], limit: int) -> None:
    names = uids(300)
    found, values, rows = sampled(names, cuts, limit)
    whole, _, _ = sampled(names, [], limit)
    assert found == whole
    assert rows == 300
    assert len(found) == min(limit, 300)
    assert [names[int(v)] for v in values] == found


def test_a_sample_of_nothing_is_empty() -> None:
    sampled = RowSampler(["v"]).sampled_rows()
    assert (len(sampled), sampled.rows, sampled.exact) == (0, 0, True)


def test_a_sample_spreads_evenly_over_the_uid_space() -> None:
    names = uids(20_000)
    found, _, _ = sampled(names, [7_000], 4_000)
    quarters = np.bincount([int(uid[0], 16) // 4 for uid in found], minlength=4)
    assert quarters.min() > 850


@settings(deadline=None, max_examples=100)
@given(st.lists(finite, min_size=1, max_size=80))
def test_quantiles_are_by_their_definition(values: list[float]) -> None:
    ordered = np.sort(np.array(values, np.float64))
    for share, found in zip(QUANTILES, quantiles(ordered), strict=True):
        plain = next(
            v for v in ordered.tolist() if sum(o <= v for o in ordered) >= share * len(values) - 1e-9
        )
        assert found == plain


@settings(deadline=None, max_examples=60)
@given(st.lists(finite, min_size=1, max_size=120), st.booleans())
def test_the_grid_counts_what_duckdb_keeps(values: list[float], single: bool) -> None:
    kind = pa.float32() if single else pa.float64()
    table = pa.table({"v": pa.array(values, kind)})
    steps = grid(np.sort(doubles(table["v"])), kind, 17)
    connection = duckdb.connect()
    connection.register("t", table)
    for threshold, below, up_to in zip(steps.thresholds, steps.below, steps.up_to, strict=True):
        sql = f"SELECT count(*) FILTER (v >= {threshold}), count(*) FILTER (v <= {threshold}) FROM t"
        assert connection.execute(sql).fetchall() == [(len(values) - below, up_to)], threshold


def test_thresholds_are_ascending_short_and_tell_values_apart() -> None:
    ordered = np.sort(np.random.default_rng(0).normal(0.3, 0.05, 5_000))
    steps = grid(ordered, pa.float64())
    numbers = [float(t) for t in steps.thresholds]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 900
    assert max(len(t) for t in steps.thresholds) <= 8
    assert (np.diff(steps.below) >= 0).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-3.0, "-3"), (0.000017834, "0.00001783"), (-0.25, "-0.25"), (1234567.0, "1234567")],
)
def test_literals_have_no_exponent(value: float, text: str) -> None:
    assert literal(value, 4) == text


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(finite, st.just(float("nan")), st.sampled_from([0.0, 1.0])), max_size=60))
def test_bands_part_the_values(values: list[float]) -> None:
    array = np.array(values, np.float64)
    there = array[~np.isnan(array)]
    if not len(there):
        assert bands(array, [0.0] * len(QUANTILES)) == []
        return
    found = bands(array, quantiles(np.sort(there)))
    assert sorted(np.concatenate([b.rows for b in found])) == np.flatnonzero(~np.isnan(array)).tolist()
    assert (found[0].start, found[-1].end) == (0.0, 1.0)
    for left, right in itertools.pairwise(found):
        assert left.end == right.start
        assert left.high < right.low


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(finite, st.sampled_from([0.0, 7.0])), min_size=1, max_size=60), st.booleans())
def test_a_histogram_counts_every_value_and_draws(values: list[float], whole: bool) -> None:
    ordered = np.sort(np.rint(values) if whole else np.array(values, np.float64))
    found = bins(ordered)
    assert found.counts.sum() == len(ordered)
    assert (np.diff(found.edges) > 0).all()
    axis = axis_of(found)
    assert bars(found).startswith("M")
    assert "nan" not in bars(found)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks())
    assert all(y >= 0 for _, y in heights(found))
    assert len(marks(axis, QUANTILES, quantiles(ordered))) == len(QUANTILES)


def test_a_skewed_positive_column_gets_a_logarithmic_axis() -> None:
    rng = np.random.default_rng(1)
    assert bins(np.sort(np.exp(rng.normal(-5, 2, 4_000)))).log
    assert not bins(np.sort(rng.uniform(0.001, 1, 4_000))).log
    whole = bins(np.sort(np.floor(np.exp(rng.uniform(0, 12, 4_000)))))
    assert whole.log
    assert (whole.edges % 1 == 0.5).all()
    assert Axis(0.01, 100, True).at(1) == pytest.approx((Axis(0, 2, False)).at(1))


def test_marks_that_are_too_near_lose_their_label() -> None:
    labels = [m.label for m in marks(Axis(0, 1, False), QUANTILES, [0.5] * len(QUANTILES))]
    assert labels.count("50") == 1
    assert labels.count("") == len(QUANTILES) - 1


def test_picks_do_not_depend_on_shards_and_differ_by_seed() -> None:
    names = uids(400)

    def picked(cuts: list[int], seed: str) -> list[str]:
        sample = RowSampler([], 1_000)
        parts = list(zip([0, *cuts], [*cuts, 400], strict=True))
        for shard, (a, b) in enumerate(parts):
            sample.add(shard, pa.array(names[a:b], pa.string()), {})
        sampled = sample.sampled_rows()
        rows = pick(sampled, np.arange(0, 400, 2), 5, seed)
        return [names[parts[sampled.shard[i]][0] + sampled.row[i]] for i in rows]

    assert picked([], "a") == picked([13, 200, 201], "a")
    assert picked([], "a") != picked([], "b")
    assert len(set(picked([], "a"))) == 5


def test_a_tally_counts_values_and_gives_up_on_strange_ones() -> None:
    tally = Tally(capacity=3)
    first = tally.add(pa.chunked_array([["en", None, "de"], ["en", "x" * 300]]))
    assert first.tolist()[:1] + first.tolist()[2:] == [0.0, 1.0, 0.0, -1.0]
    assert np.isnan(first[1])
    tally.add(pa.chunked_array([pa.array(["fr", "it", "de"])]))
    assert tally.top(2) == [("de", 1, 2), ("en", 0, 2)]
    assert tally.others == 2
    assert sum(tally.counts) == 5


def test_a_tally_takes_booleans_and_dictionaries() -> None:
    tally = Tally()
    tally.add(pa.chunked_array([pa.array([True, False, True, None])]))
    assert tally.top(5) == [("true", 0, 2), ("false", 1, 1)]
    tally = Tally()
    tally.add(pa.chunked_array([pa.array(["a", "b", "a"]).dictionary_encode()]))
    assert tally.top(5) == [("a", 0, 2), ("b", 1, 1)]


def test_names_and_values_are_quoted_where_they_have_to_be() -> None:
    assert identifier("text_length") == "text_length"
    assert identifier("2nd_score") == '"2nd_score"'
    assert identifier("current_date") == '"current_date"'
    assert key("a b") == '"a b"'
    assert rule("x_lang", "x_lang = 'it''s \"q\"'") == "x_lang: \"x_lang = 'it''s \\\"q\\\"'\""


def test_numbers_to_read() -> None:
    assert [number(v) for v in (3.0, -1234.0, 0.123456, 1.7e308)] == ["3", "−1,234", "0.1235", "∞"]
    assert [percent(v) for v in (0, 0.00038, 0.0303, 0.9, 1)] == [
        "0 %",
        "0.038 %",
        "3.0 %",
        "90.0 %",
        "100 %",
    ]


def test_infinities_become_numbers_and_nan_stays_missing() -> None:
    found = doubles(pa.chunked_array([pa.array([1.5, None, float("nan"), float("inf")])]))
    assert found[0] == 1.5
    assert np.isnan(found[1:3]).all()
    assert np.isfinite(found[3])


def test_a_broken_picture_has_no_thumbnail() -> None:
    assert thumbnail(b"\xff\xd8\xff\xe0 no picture") is None
