from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.pages.pictures import thumbnail
from curate.pages.words import plain_link
from curate.report.charts import histogram, number
from curate.report.page import size_text
from curate.report.picking import Gallery, draws, ranks
from curate.report.statistics import Groups, Histogram, edges_for, hosts
from curate.rules.cuts import Cut


def test_edges_hold_all_cuts_and_nearly_all_values() -> None:
    values = np.random.default_rng(0).normal(0.3, 0.05, 5000)
    edges, log = edges_for(values, [0.9, -0.2])
    assert not log
    assert edges[0] < -0.2
    assert edges[-1] > 0.9
    assert np.all(np.diff(edges) > 0)


def test_edges_of_whole_numbers_have_one_bin_each() -> None:
    edges, _ = edges_for(np.array([1.0, 2.0, 5.0]), [], whole=True)
    assert edges.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]


def test_edges_of_long_tails_are_logarithmic() -> None:
    edges, log = edges_for(np.geomspace(10, 1e7, 1000), [])
    assert log
    assert np.allclose(np.diff(np.log(edges)), np.diff(np.log(edges))[0])


@pytest.mark.parametrize(("values", "cuts"), [([], []), ([np.nan], [3.0]), ([2.0, 2.0], []), ([np.inf], [])])
def test_edges_of_degenerate_columns(values: list[float], cuts: list[float]) -> None:
    edges, _ = edges_for(np.array(values, np.float64), cuts)
    assert np.all(np.diff(edges) > 0)
    assert all(edges[0] <= c <= edges[-1] for c in cuts)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5) | st.just(float("nan")), st.booleans()), max_size=60))
def test_histogram_counts_every_row_once(rows: list[tuple[float, bool]]) -> None:
    values = np.array([v for v, _ in rows], np.float64)
    kept = np.array([k for _, k in rows], bool)
    bins = Histogram(np.linspace(-1, 1, 9))
    half = len(rows) // 2
    bins.add(values[:half], kept[:half])
    bins.add(values[half:], kept[half:])
    assert bins.counts.sum() + bins.missing.sum() == len(rows)
    assert bins.counts[1].sum() + bins.missing[1] == kept.sum()
    assert bins.missing.sum() == np.isnan(values).sum()
    assert bins.outside == (np.abs(values) > 1).sum()


def test_groups_are_exact_until_full_and_bounded_after() -> None:
    groups = Groups(capacity=4)
    kept = np.array([True, False, True])
    groups.add(pa.array(["a", "a", None]), kept)
    assert groups.top(3) == [("a", 2, 1)]
    for i in range(20):
        groups.add(pa.array([f"n{i}", "a", "a"]), kept)
    assert groups.pruned
    assert len(groups.samples) <= 4
    assert groups.top(1) == [("a", 42, 21)]


def test_hosts() -> None:
    urls = {
        "https://www.Example.com/a": "example.com",
        "http://user:p@h.test:8080/x": "h.test",
        "https://[::1]/x": "[::1]",
        "HTTP://A.b?q": "a.b",
        "javascript:alert(1)": None,
        "//no.scheme/x": None,
        "": None,
    }
    assert hosts(pa.chunked_array([list(urls)])).to_pylist() == list(urls.values())


def test_gallery_takes_from_as_few_shards_as_it_can() -> None:
    order = ranks(20, seed=0)
    assert sorted(order) == list(range(20))
    assert not np.array_equal(order, ranks(20, seed=1))
    often, rare = Gallery(6), Gallery(3)
    for shard, rank in enumerate(order.tolist()):
        drawn = draws(50, 0, rank)
        often.offer(str(shard), rank, np.arange(50), drawn)
        if shard % 4 == 0:
            rare.offer(str(shard), rank, np.array([7]), drawn[[7]])
    assert {p.rank for p in often.picks} == {0}
    assert len({p.row for p in often.picks}) == 6
    assert len({p.shard for p in rare.picks}) == 3
    assert often.seen == 1000
    assert sorted(rare.picks) == rare.picks


def test_gallery_does_not_depend_on_the_order_of_shards() -> None:
    one, two = Gallery(5), Gallery(5)
    for gallery, shards in ((one, range(8)), (two, reversed(range(8)))):
        for shard in shards:
            rows = np.arange(shard % 3)
            gallery.offer(str(shard), shard, rows, draws(len(rows), 0, shard))
    assert one.picks == two.picks


def test_plain_links() -> None:
    good = ["https://a.b/c?d=<e>", "http://a"]
    bad = [
        "javascript:alert(1)",
        "JaVaScRiPt:x",
        "data:text/html,x",
        "//a.b",
        "https:",
        "https://a\n.b",
        " https://a",
        "java\tscript:x",
        "http://[bad",
    ]
    assert [plain_link(u) for u in good] == good
    assert [plain_link(u) for u in bad] == [None] * len(bad)


def test_thumbnails_are_small_and_broken_images_are_none() -> None:
    out = io.BytesIO()
    Image.new("CMYK", (900, 300)).save(out, "JPEG")
    url = thumbnail(out.getvalue())
    assert url is not None
    assert url.startswith("data:image/webp;base64,")
    assert len(url) < 2000
    assert thumbnail(out.getvalue()[:200]) is None
    assert thumbnail(b"nothing") is None
    palette = io.BytesIO()
    Image.new("P", (20, 20)).save(palette, "PNG", transparency=0)
    assert thumbnail(palette.getvalue()) is not None


def test_charts_escape_what_they_are_told() -> None:
    bins = Histogram(np.linspace(0, 1, 5))
    bins.add(np.array([0.1, 0.9]), np.array([True, False]))
    svg = histogram(bins, [Cut("a", ">=", 0.5)], '"><script>')
    assert svg.startswith("<svg ")
    assert "<script" not in svg
    assert "http" not in svg
    assert "≥ 0.5" in svg
    assert svg == histogram(bins, [Cut("a", ">=", 0.5)], '"><script>')


def test_numbers() -> None:
    assert [number(v) for v in (0.26, 0.123456, 3.0, 1234567.0, 1e-7)] == [
        "0.26",
        "0.1235",
        "3",
        "1,234,567",
        "1e-07",
    ]
    assert [size_text(n) for n in (0, 999, 1500, 250_000, 3 * 10**9)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "250 kB",
        "3.0 GB",
    ]
