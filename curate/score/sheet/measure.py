"""Quantiles, thresholds and bins of one numeric column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.pages.words import ENDLESS
from curate.score.sheet.sample import Floats

QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
GRID = 1_000
"""Steps of the threshold slider: a tenth of a percent of the rows each."""
BINS = 72

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """Thresholds as they are written in a rule, and how many rows lie on either side.

    Attributes:
        thresholds: ascending, in plain decimals.
        below: rows with a smaller value, int64; the rest is what ``>=`` keeps.
        up_to: rows with at most this value, int64: what ``<=`` keeps.
    """

    thresholds: tuple[str, ...]
    below: Counts
    up_to: Counts


@dataclass(frozen=True)
class Bins:
    """A histogram.

    Attributes:
        edges: float64 (bins + 1,), ascending; values beyond them count in the outer bins.
        counts: int64 (bins,).
        log: whether the edges are evenly spaced on a logarithmic scale.
        outside: values beyond the edges.
    """

    edges: Floats
    counts: Counts
    log: bool
    outside: int


@dataclass(frozen=True)
class Band:
    """Values between two neighbouring quantiles.

    Attributes:
        start, end: shares of the rows with a value, from one quantile to the next that differs.
        low, high: the smallest and largest value in it.
        rows: which of the values, int64, ascending.
    """

    start: float
    end: float
    low: float
    high: float
    rows: npt.NDArray[np.intp]


def quantiles(ordered: Floats, shares: tuple[float, ...] = QUANTILES) -> list[float]:
    """The smallest value that at least this share of the values does not exceed; values that occur.

    Args:
        ordered: ascending, float64 (n,), n > 0.
        shares: in (0, 1].
    """
    places = np.ceil(np.array(shares) * len(ordered) - 1e-9).astype(np.int64) - 1
    return [float(v) for v in ordered[np.clip(places, 0, len(ordered) - 1)]]


def grid(ordered: Floats, kind: pa.DataType, steps: int = GRID) -> Grid:
    """Thresholds at even steps of rank, with the fewest digits that still tell them apart.

    The counts are those of the rounded threshold, compared as DuckDB compares: a float32 column with
    the literal as float32.

    Args:
        ordered: ascending, float64 (n,), n > 0.
        kind: type of the column.
        steps: how many, at most.
    """
    places = np.unique(np.linspace(0, len(ordered) - 1, min(steps, len(ordered)) + 1).astype(np.int64))
    wanted = np.unique(ordered[places])
    texts = _written(wanted)
    values = compared([float(text) for text in texts], kind)
    order = np.argsort(values, kind="stable")
    return Grid(
        tuple(texts[i] for i in order),
        np.searchsorted(ordered, values[order], "left").astype(np.int64),
        np.searchsorted(ordered, values[order], "right").astype(np.int64),
    )


def compared(values: list[float], kind: pa.DataType) -> Floats:
    """Literals as the column sees them, float64 (n,)."""
    found = np.array(values, np.float64)
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):  # DuckDB reads halves as float32
        with np.errstate(over="ignore"):
            found = found.astype(np.float32).astype(np.float64)
    return np.asarray(np.clip(found, -ENDLESS, ENDLESS), np.float64)


def _written(values: Floats) -> list[str]:
    for digits in (3, 4, 5, 6, 9):
        texts = list(dict.fromkeys(literal(v, digits) for v in values.tolist()))
        if len(texts) >= 0.95 * len(values):
            return texts
    return list(dict.fromkeys(literal(v, None) for v in values.tolist()))


def literal(value: float, digits: int | None = None) -> str:
    """A number as SQL reads it, in at most so many significant digits, without an exponent if short.

    DuckDB takes a literal with an exponent for a DOUBLE, and a float32 column would then be compared
    with a number that it cannot hold.
    """
    if value == 0:
        return "0"
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    if digits is None:
        text = np.format_float_positional(value, unique=True, trim="-")
    else:
        text = np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-")
    return text if len(text) <= 36 else repr(value)


def bins(ordered: Floats, weight: float = 1.0, count: int = BINS) -> Bins:
    """A histogram of nearly all values; logarithmic when they are positive, spread over two decades, and
    half of them would share the first tenth of a linear axis.

    Args:
        ordered: ascending, float64 (n,), n > 0.
        weight: rows of the pool for each value.
        count: bins, at most.
    """
    finite = ordered[np.abs(ordered) < ENDLESS]
    if not len(finite):
        finite = np.zeros(1)
    whole = bool((finite == np.floor(finite)).all())
    low, high = (float(finite[int(q * (len(finite) - 1))]) for q in (0.002, 0.998))
    median = float(finite[len(finite) // 2])
    log = low > 0 and high / low > 100 and median - low < 0.1 * (high - low)
    if whole and high - low < 1e15:
        if log:
            edges = np.unique(np.floor(np.geomspace(low, high + 1, count + 1))) - 0.5
        else:
            step = max(1.0, np.ceil((high - low + 1) / count))
            edges = np.arange(low - 0.5, high + step, step)
    elif log:
        edges = np.geomspace(low, high, count + 1)
    else:
        margin = (high - low) * 0.01 or max(abs(low), 1.0) * 0.5
        edges = np.linspace(low - margin, high + margin, count + 1)
    counts = np.histogram(np.clip(ordered, edges[0], edges[-1]), edges)[0]
    outside = int(((ordered < edges[0]) | (ordered > edges[-1])).sum())
    return Bins(edges, np.rint(counts * weight).astype(np.int64), log, round(outside * weight))


def bands(values: Floats, cuts: list[float], shares: tuple[float, ...] = QUANTILES) -> list[Band]:
    """The rows between neighbouring quantiles; quantiles of one value make one band.

    Args:
        values: float64 (n,), NaN for missing, in any order.
        cuts: the values of the quantiles, ascending. A value that equals one is above it.
        shares: of the quantiles.
    """
    there = np.flatnonzero(~np.isnan(values))
    which = np.searchsorted(np.array(cuts), values[there], "right")
    found, start = [], 0.0
    for i, end in enumerate((*shares, 1.0)):
        rows = there[which == i]
        if len(rows):
            part = values[rows]
            found.append(Band(start, end, float(part.min()), float(part.max()), rows))
            start = end
    if found and found[-1].end < 1:
        last = found[-1]
        found[-1] = Band(last.start, 1.0, last.low, last.high, last.rows)
    return found
