"""The comparison of a grid for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from curate.dataset import layout
from curate.dataset.workspace import Workspace
from curate.filter.grid_files import OVERLAP, POINTS, Comparison

MEANS = 6
"""Columns whose means are shown; all are in the table that is stored."""

LANGUAGES = 3
MATRIX = 12
"""Points up to which the overlap of all pairs is shown."""


def print_comparison(console: Console, workspace: Workspace, found: Comparison) -> None:
    """A row for each point; of few points also how much of each other they keep."""
    about = f", {found.description}" if found.description else ""
    size = f"{len(found.overlap):,} points over {found.rows:,} rows"
    console.print(
        f"\n[bold]{escape(found.name)}[/]{escape(about)}: {size}; some point keeps "
        f"{_share(found.any, found.rows)} of them",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_points(found))
    if 1 < len(found.overlap) <= MATRIX:
        console.print(_overlap(found))
    folder = workspace.full(layout.grid_file(found.name, "")).rstrip("/")
    more = "" if len(found.overlap) <= MATRIX else f"; how they overlap: {OVERLAP}"
    console.print(
        f"all of it in {escape(folder)}{more}; as experiments to paste: {POINTS}",
        highlight=False,
        soft_wrap=True,
    )


def _points(found: Comparison) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("point", no_wrap=True)
    repeats = found.table["total"] != found.table["kept"]
    names = ["kept", *(["with repeats"] if repeats else []), "share"]
    names += [name.removeprefix("at_") for name in found.thresholds]
    names += [f"mean {column}" for column in found.means[:MEANS]]
    for name in names:
        table.add_column(escape(name), justify="right")
    spoken = any(found.languages)
    if spoken:
        table.add_column("languages")
    for row, languages in zip(found.table.to_pylist(), found.languages, strict=True):
        cells = [f"{row['kept']:,}", *([f"{row['total']:,}"] if repeats else []), f"{row['share']:.2%}"]
        cells += [_number(row[name]) for name in found.thresholds]
        cells += [_number(row[f"mean_{column}"]) for column in found.means[:MEANS]]
        cells += [_spoken(languages, row["kept"])] if spoken else []
        table.add_row(escape(row["point"]), *cells)
    return table


def _overlap(found: Comparison) -> Table:
    table = Table(
        title="of what either keeps, both keep", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    points = found.table["point"].to_pylist()
    table.add_column("", no_wrap=True)
    for number in range(len(points)):
        table.add_column(str(number + 1), justify="right")
    for number, (point, shares) in enumerate(zip(points, found.jaccard(), strict=True)):
        cells = ["" if np.isnan(share) else f"{share:.0%}" for share in shares]
        table.add_row(f"{number + 1} {escape(point)}", *cells)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _spoken(languages: Mapping[str, int], kept: int) -> str:
    first = list(languages.items())[:LANGUAGES]
    return escape(", ".join(f"{name} {rows / kept:.0%}" for name, rows in first))
