"""What a sheet says, as plain values for the template, and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.pages import html
from curate.pages.words import number
from curate.score.sheet import draw
from curate.score.sheet.cards import Card, Place
from curate.score.sheet.choose import pick
from curate.score.sheet.measure import QUANTILES, Grid, bands, bins, grid, quantiles
from curate.score.sheet.sample import Indices
from curate.score.sheet.scan import Column, Scanned

_PLAIN = re.compile(r"(?i)(?!current_|session_|local)[a-z][a-z0-9]*_[a-z0-9_]+")
"""Names that neither SQL nor YAML takes for anything but names."""

VALUES = 16
"""Most frequent values of a category column that are shown."""


@dataclass(frozen=True)
class Gallery:
    """Some samples side by side: those of a band of values, or of one category.

    Attributes:
        start, end: shares of the rows with a value, or None for a category.
        low, high: the lowest and highest value, or None for a category.
        value: of a category.
        rows: rows of the pool in it; an estimate when the pool was sampled.
        shown: indices of the drawn rows that are shown.
    """

    rows: int
    shown: Indices
    start: float | None = None
    end: float | None = None
    low: float | None = None
    high: float | None = None
    value: str | None = None


@dataclass(frozen=True)
class Sheet:
    """Everything that a page is made from.

    Attributes:
        scorer: its name; ``facts`` its type and what else tells one from another.
        shards: that were read; ``expected`` shards there are.
        galleries: column → its samples.
    """

    scorer: str
    facts: Mapping[str, str]
    columns: Sequence[Column]
    shards: int
    expected: int
    scanned: Scanned
    galleries: Mapping[str, Sequence[Gallery]]
    cards: Mapping[Place, Card]
    blur: bool
    low_is_good: bool


def galleries(scanned: Scanned, column: Column, count: int) -> list[Gallery]:
    """Which samples of a column are shown, ``count`` for each band of quantiles or each value."""
    sampled = scanned.sampled
    values = sampled.values[column.name]
    if column.kind == "category":
        top = scanned.tallies[column.name].top(VALUES)
        return [
            Gallery(rows, pick(sampled, np.flatnonzero(values == code), count, column.name), value=value)
            for value, code, rows in top
        ]
    ordered = _ordered(scanned, column)
    if not len(ordered):
        return []
    weight = _weight(scanned, column)
    found = []
    for band in bands(values, quantiles(ordered)):
        chosen = pick(sampled, band.rows, count, column.name)
        chosen = chosen[np.lexsort((chosen, values[chosen]))]
        rows = round(len(band.rows) * weight)
        found.append(Gallery(rows, chosen, band.start, band.end, band.low, band.high))
    return found


def render(sheet: Sheet) -> str:
    """The page. Whatever comes from the data is escaped by the template."""
    filters = {"pct": percent, "brief": brief, "json": _json}
    return html.render("curate.score.sheet", "sheet", {**view(sheet), "plot": draw}, filters)


def view(sheet: Sheet) -> dict[str, Any]:
    """All values that the template reads."""
    sampled = sheet.scanned.sampled
    shown = [c for c in sheet.columns if c.kind != "other"]
    return {
        "scorer": sheet.scorer,
        "facts": sheet.facts,
        "rows": sampled.rows,
        "sampled": None if sampled.exact else len(sampled),
        "shards": sheet.shards,
        "expected": sheet.expected,
        "blur": sheet.blur,
        "pictures": any(card.picture for card in sheet.cards.values()),
        "columns": [_column(sheet, column) for column in shown],
        "other": [{"name": c.name, "type": str(c.type)} for c in sheet.columns if c.kind == "other"],
    }


def _column(sheet: Sheet, column: Column) -> dict[str, Any]:
    scanned = sheet.scanned
    without = scanned.without(column.name)
    missing = sorted(scanned.missing[column.name].items(), key=lambda item: (-item[1], item[0]))
    facts: dict[str, Any] = {
        "name": column.name,
        "sql": identifier(column.name),
        "key": key(column.name),
        "kind": column.kind,
        "type": str(column.type),
        "rows": scanned.sampled.rows,
        "known": scanned.sampled.rows - without,
        "without": without,
        "missing": missing,
        "galleries": [_gallery(sheet, column, gallery) for gallery in sheet.galleries[column.name]],
    }
    if column.kind == "category":
        return facts | _categories(sheet, column)
    return facts | (_numbers(sheet, column) if facts["known"] else {"empty": True})


def _numbers(sheet: Sheet, column: Column) -> dict[str, Any]:
    scanned = sheet.scanned
    ordered, weight = _ordered(scanned, column), _weight(scanned, column)
    cuts = quantiles(ordered)
    steps = _scaled(grid(ordered, column.type), weight)
    histogram = bins(ordered, weight)
    axis = draw.axis_of(histogram)
    at_least = not sheet.low_is_good
    begin = cuts[QUANTILES.index(0.10 if at_least else 0.90)]
    first = int(np.abs(np.array([float(t) for t in steps.thresholds]) - begin).argmin())
    known = scanned.sampled.rows - scanned.without(column.name)
    kept = known - int(steps.below[first]) if at_least else int(steps.up_to[first])
    return {
        "empty": False,
        "single": str(column.type) in ("float", "halffloat"),
        "whole": not str(column.type).startswith(("float", "double", "halffloat", "decimal")),
        "at_least": at_least,
        "first": first,
        "threshold": steps.thresholds[first],
        "kept": kept,
        "rule": rule(
            column.name, f"{identifier(column.name)} {'>=' if at_least else '<='} {steps.thresholds[first]}"
        ),
        "grid": {
            "t": list(steps.thresholds),
            "below": steps.below.tolist(),
            "upTo": steps.up_to.tolist(),
        },
        "axis": axis,
        "bars": draw.bars(histogram),
        "heights": draw.heights(histogram),
        "ticks": [(axis.at(v), number(v)) for v in axis.ticks()],
        "marks": draw.marks(axis, QUANTILES, cuts),
        "outside": histogram.outside,
        "low": column.shown(float(ordered[0])),
        "high": column.shown(float(ordered[-1])),
        "mean": column.shown(float(ordered.mean())),
        "quantiles": _table(column, ordered, cuts, weight, steps),
    }


def _table(
    column: Column, ordered: Any, cuts: list[float], weight: float, steps: Grid
) -> list[dict[str, Any]]:
    rows = []
    thresholds = np.array([float(t) for t in steps.thresholds])
    for share, value in zip(QUANTILES, cuts, strict=True):
        above = len(ordered) - int(np.searchsorted(ordered, value, "left"))
        below = int(np.searchsorted(ordered, value, "right"))
        rows.append(
            {
                "share": share,
                "value": column.shown(value),
                "text": steps.thresholds[int(np.abs(thresholds - value).argmin())],
                "above": round(above * weight),
                "up_to": round(below * weight),
            }
        )
    return rows


def _categories(sheet: Sheet, column: Column) -> dict[str, Any]:
    tally = sheet.scanned.tallies[column.name]
    top = tally.top(VALUES)
    known = sheet.scanned.sampled.rows - sheet.scanned.without(column.name)
    boolean = str(column.type) == "bool"
    values = [
        {
            "value": value,
            "sql": value if boolean else quoted(value),
            "rows": rows,
            "width": f"{100 * rows / max(1, top[0][2]):.2f}",
        }
        for value, _, rows in top
    ]
    sql = f"{identifier(column.name)} = {values[0]['sql']}" if values else ""
    return {
        "empty": not values,
        "values": values,
        "different": len(tally.codes),
        "more": known - sum(rows for _, _, rows in top),
        "pruned": tally.others,
        "capacity": tally.capacity,
        "rule": rule(column.name, sql),
    }


def _gallery(sheet: Sheet, column: Column, gallery: Gallery) -> dict[str, Any]:
    sampled = sheet.scanned.sampled
    values = sampled.values[column.name]
    made = []
    for i in gallery.shown.tolist():
        card = sheet.cards[int(sampled.shard[i]), int(sampled.row[i])]
        value = float(values[i])
        made.append(
            {
                "card": card,
                "value": gallery.value if gallery.value is not None else repr(value),
                "text": gallery.value if gallery.value is not None else number(column.shown(value)),
            }
        )
    return {
        "rows": gallery.rows,
        "start": gallery.start,
        "end": gallery.end,
        "low": None if gallery.low is None else column.shown(gallery.low),
        "high": None if gallery.high is None else column.shown(gallery.high),
        "value": gallery.value,
        "cards": made,
    }


def rule(name: str, sql: str) -> str:
    """A rule of an experiment as a line of YAML."""
    return f"{key(name)}: {json.dumps(sql, ensure_ascii=False)}"


def key(name: str) -> str:
    """A name as a key of YAML, quoted where it has to be."""
    return name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def identifier(name: str) -> str:
    """A column as SQL names it, quoted where it has to be."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def quoted(value: str) -> str:
    """A text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def brief(value: float) -> str:
    """A number to glance at: three digits."""
    return number(float(f"{value:.3g}")) if abs(value) < 1000 else number(value)


def percent(share: float) -> str:
    """A share of 1 to read."""
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def _ordered(scanned: Scanned, column: Column) -> Any:
    values = scanned.sampled.values[column.name]
    return np.sort(values[~np.isnan(values)])


def _weight(scanned: Scanned, column: Column) -> float:
    """Rows of the pool that a drawn row with a value stands for."""
    if scanned.sampled.exact:
        return 1.0
    sampled = int((~np.isnan(scanned.sampled.values[column.name])).sum())
    return (scanned.sampled.rows - scanned.without(column.name)) / max(1, sampled)


def _scaled(steps: Grid, weight: float) -> Grid:
    def scale(counts: Any) -> Any:
        return np.rint(counts * weight).astype(np.int64)

    return Grid(steps.thresholds, scale(steps.below), scale(steps.up_to))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
