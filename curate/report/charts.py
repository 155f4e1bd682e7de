"""Histograms and the size map as SVG that takes its colours from the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.report.statistics import Histogram
from curate.rules.cuts import Cut

WIDTH, WIDE, HEIGHT = 330, 460, 150
_INK = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--line)",
    "#040404": "var(--kept)",
    "#050505": "var(--dropped)",
    "#060606": "var(--cut)",
}
"""Stand-ins that the drawing library takes for colours → the page's variables."""
INK, SOFT, LINE, KEPT, DROPPED, CUT = _INK

SIGNS = {">": ">", ">=": "≥", "<": "<", "<=": "≤"}
"""Operator of a cut → how it is written."""


def histogram(histogram: Histogram, cuts: Sequence[Cut], title: str) -> str:
    """Kept below dropped, stacked, with the cuts drawn in. Returns an ``<svg>``."""
    import altair as alt

    short = histogram.log or max(abs(histogram.edges[0]), abs(histogram.edges[-1])) >= 10_000
    axis = alt.Axis(tickCount=5, format="~s") if short else alt.Axis(tickCount=5)
    return _svg(_stacked(histogram, cuts, axis), title, WIDTH)


def aspects(histogram: Histogram) -> str:
    """Ratios of width to height, from 1:4 to 4:1. Returns an ``<svg>``."""
    import altair as alt

    words = "datum.value < 1 ? '1:' + round(1 / datum.value) : round(datum.value) + ':1'"
    axis = alt.Axis(values=[1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4], labelExpr=words)
    return _svg(_stacked(histogram, (), axis), "Aspect ratios, kept and dropped samples", WIDE)


def _stacked(histogram: Histogram, cuts: Sequence[Cut], axis: Any) -> Any:
    import altair as alt

    ends = [float(histogram.edges[0]), float(histogram.edges[-1])]
    scale = alt.Scale(type="log" if histogram.log else "linear", zero=False, nice=False, domain=ends)
    dropped, kept = histogram.counts
    bars = [
        {"a": float(a), "b": float(b), "from": float(low), "to": float(high), "of": of}
        for a, b, k, d in zip(histogram.edges[:-1], histogram.edges[1:], kept, dropped, strict=True)
        for of, low, high in (("kept", 0, k), ("dropped", k, k + d))
        if high > low
    ]
    # Room above the bars for the labels of cuts.
    top = float((kept + dropped).max()) * (1.04 + 0.12 * min(len(cuts), 3))
    x = alt.X("a:Q", scale=scale, title=None, axis=axis)
    y = alt.Y(
        "from:Q",
        title=None,
        scale=alt.Scale(domain=[0, top], nice=False),
        axis=alt.Axis(tickCount=4, format="~s"),
    )
    color = alt.Color("of:N", scale=alt.Scale(domain=["kept", "dropped"], range=[KEPT, DROPPED]), legend=None)
    layers: list[Any] = [
        alt.Chart(alt.InlineData(values=bars))
        .mark_rect(stroke=None)
        .encode(x=x, x2="b:Q", y=y, y2="to:Q", color=color)
    ]
    for i, (value, op) in enumerate(sorted((cut.value, cut.op) for cut in cuts if cut.value is not None)):
        left = _place(value, ends, histogram.log) > 0.55
        data = alt.InlineData(values=[{"a": value, "t": f"{SIGNS[op]} {number(value)}"}])
        base = alt.Chart(data).encode(x=alt.X("a:Q", scale=scale))
        layers.append(base.mark_rule(color=CUT, strokeWidth=1.5, strokeDash=[4, 3]))
        layers.append(
            base.mark_text(
                color=CUT,
                align="right" if left else "left",
                dx=-5 if left else 5,
                fontWeight=600,
                fontSize=11,
            ).encode(text="t:N", y=alt.value(4 + 15 * (i % 3)))
        )
    return alt.layer(*layers)


def size_map(counts: npt.NDArray[np.int64], edges: npt.NDArray[np.float64]) -> str:
    """Original width by height on logarithmic scales, the darker the more samples.

    Args:
        counts: int64, shape (bins, bins): width, height.
        edges: pixels, float64, shape (bins + 1,).
    """
    import altair as alt

    top = float(counts.max()) or 1.0
    cells = [
        {
            "w": float(edges[i]),
            "w2": float(edges[i + 1]),
            "h": float(edges[j]),
            "h2": float(edges[j + 1]),
            "o": 0.12 + 0.88 * float(np.sqrt(counts[i, j] / top)),
        }
        for i, j in np.argwhere(counts)
    ]
    domain = [float(edges[0]), float(edges[-1])]
    ticks = [t for t in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192) if domain[0] <= t <= domain[1]]
    scale = alt.Scale(type="log", base=2, domain=domain)
    axis = alt.Axis(values=ticks, format="d", grid=True)
    chart = (
        alt.Chart(alt.InlineData(values=cells))
        .mark_rect(color=KEPT, stroke=None)
        .encode(
            x=alt.X("w:Q", scale=scale, axis=axis, title="original width, pixels"),
            x2="w2:Q",
            y=alt.Y("h:Q", scale=scale, axis=axis, title="height"),
            y2="h2:Q",
            opacity=alt.Opacity("o:Q", scale=None),
        )
    )
    return _svg(chart, "Samples by original width and height", WIDE)


def number(value: float) -> str:
    """A number as short as four digits allow."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _place(value: float, ends: Sequence[float], log: bool) -> float:
    low, high, at = np.log([*ends, max(value, ends[0])]) if log else (*ends, value)
    return float((at - low) / (high - low))


def _svg(chart: Any, title: str, width: int) -> str:
    import vl_convert

    config = {
        "background": None,
        "font": "sans-serif",
        "view": {"stroke": None},
        "axis": {
            "labelColor": SOFT,
            "titleColor": INK,
            "titleFontWeight": 500,
            "titleFontSize": 12,
            "titlePadding": 8,
            "labelFontSize": 11,
            "gridColor": LINE,
            "domainColor": LINE,
            "tickColor": LINE,
            "labelOverlap": True,
        },
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
    }
    spec = chart.properties(width=width, height=HEIGHT if width == WIDTH else 200).to_dict()
    spec["config"] = config
    return themed(vl_convert.vegalite_to_svg(spec), title)


_SCHEMA = re.compile(r'\s(?:xmlns(?::xlink)?|version|class)="[^"]*"')


def themed(svg: str, title: str) -> str:
    """An SVG document as an inline element: the page's colours and font, a title, no fixed size."""
    for stand_in, variable in _INK.items():
        svg = svg.replace(f'"{stand_in}"', f'"{variable}"')
    head, _, body = svg.partition(">")
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", _SCHEMA.sub("", head))
    body = _SCHEMA.sub("", body).replace('font-family="sans-serif"', "")
    body = re.sub(r'\s(?:aria-[a-z]+|role)="[^"]*"', "", body)
    safe = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'{head} role="img" aria-label="{safe}">{body}'
