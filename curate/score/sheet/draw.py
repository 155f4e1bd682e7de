"""The histogram of a column as SVG; colours, and where it is cut, are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.score.sheet.measure import Bins

WIDTH, HEIGHT = 760, 236
LEFT, RIGHT, TOP, BASE = 46, 10, 12, 178
"""The plot's sides within the picture."""
MARK_ROOM = 19
"""Pixels between the labels of two quantile marks."""
MARKS_FIRST = (0.5, 0.01, 0.99, 0.25, 0.75, 0.1, 0.9, 0.05, 0.95)
"""Which quantile keeps its label when two are too near."""


@dataclass(frozen=True)
class Axis:
    """Values to horizontal pixels."""

    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        """Pixels from the left of the picture; values beyond the ends are at the ends."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = (float(np.log(v)) for v in (low, high, value))
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low), 2)

    def ticks(self, about: int = 7) -> list[float]:
        """Round values within the ends."""
        if self.log:
            powers = range(int(np.floor(np.log10(self.low))), int(np.ceil(np.log10(self.high))) + 1)
            steps = (1,) if len(powers) > 5 else (1, 3) if len(powers) > 3 else (1, 2, 5)
            values = [m * 10.0**p for p in powers for m in steps]
        else:
            step = _round_step((self.high - self.low) / about)
            first = int(np.ceil(self.low / step))
            values = [i * step for i in range(first, first + 3 * about)]
        return [v for v in values if self.low <= v <= self.high]


@dataclass(frozen=True)
class Mark:
    """A quantile on the axis; the label is empty where there is no room for it."""

    x: float
    label: str


def axis_of(bins: Bins) -> Axis:
    """The axis of a histogram."""
    return Axis(float(bins.edges[0]), float(bins.edges[-1]), bins.log)


def bars(bins: Bins) -> str:
    """The outline of all bars as one path; the highest one fills the plot."""
    axis, top = axis_of(bins), max(1, int(bins.counts.max()))
    parts = []
    for left, right, count in zip(bins.edges[:-1], bins.edges[1:], bins.counts.tolist(), strict=True):
        if count:
            a, b = axis.at(float(left)), axis.at(float(right))
            gap = 0.8 if b - a > 3 else 0.0
            height = max(1.0, (BASE - TOP) * count / top)
            parts.append(f"M{a:g} {BASE}V{BASE - height:.1f}H{b - gap:g}V{BASE}z")
    return "".join(parts)


def heights(bins: Bins) -> list[tuple[float, float]]:
    """Round counts and where they are, from the top, for the lines behind the bars."""
    top = max(1, int(bins.counts.max()))
    step = max(1.0, _round_step(top / 4))
    return [(n * step, round(BASE - (BASE - TOP) * n * step / top, 1)) for n in range(1, int(top / step) + 1)]


def marks(axis: Axis, shares: Sequence[float], values: Sequence[float]) -> list[Mark]:
    """Where the quantiles lie, labelled in percent as far as there is room."""
    places = {share: axis.at(value) for share, value in zip(shares, values, strict=True)}
    labelled: list[float] = []
    for share in MARKS_FIRST:
        if share in places and all(abs(places[share] - places[o]) >= MARK_ROOM for o in labelled):
            labelled.append(share)
    return [Mark(x, f"{100 * share:g}" if share in labelled else "") for share, x in places.items()]


def _round_step(raw: float) -> float:
    power = 10.0 ** np.floor(np.log10(raw))
    return float(next(m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999) * power)
