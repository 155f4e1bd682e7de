"""The comparison of a grid for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from curate.dataset import layout
from curate.dataset.workspace import Workspace
from curate.engine.progress import counted
from curate.filter.grid_files import OVERLAP, POINTS, TABLE, Comparison
from curate.inspect.tables import natural_width, print_whole
from curate.terminal import escaped, one_line

MEANS = 1
"""Columns whose means come before languages and cuts: there is rarely room for all."""

LANGUAGES = 3
MATRIX = 12
"""Points up to which the overlap of all pairs is shown."""


def print_comparison(console: Console, workspace: Workspace, found: Comparison) -> None:
    """A row for each point; of few points also how much of each other they keep."""
    about = f", {one_line(found.description)}" if found.description else ""
    size = f"{counted(len(found.overlap), 'point')} over {counted(found.rows, 'row')}"
    console.print(
        f"\n[bold]{escape(found.name)}[/]{escape(about)}: {size}; some point keeps "
        f"{_share(found.any, found.rows)} of them",
        highlight=False,
        soft_wrap=True,
    )
    table, hidden = _points(found, console.width)
    print_whole(console, table)
    if hidden:
        what = "column does" if hidden == 1 else "columns do"
        said = f"{hidden} more {what} not fit here: {TABLE}, index.html\n"
        console.print(said, highlight=False, soft_wrap=True)
    overlap = _overlap(found) if 1 < len(found.overlap) <= MATRIX else None
    fits = overlap is not None and natural_width(console, overlap) <= console.width
    if overlap is not None and fits:
        print_whole(console, overlap)
    folder = workspace.location(layout.grid_file(found.name, "")).rstrip("/")
    more = "" if fits or len(found.overlap) == 1 else f"; how they overlap: {OVERLAP}"
    console.print(
        f"all of it in {escape(folder)}{more}; as experiments to paste: {POINTS}",
        highlight=False,
        soft_wrap=True,
    )


class _Column(NamedTuple):
    """What one column shows."""

    title: str
    cells: list[str]
    right: bool = True

    @property
    def width(self) -> int:
        """Characters, with the space around it."""
        return max(cell_len(line) for text in (self.title, *self.cells) for line in text.split("\n")) + 3


def _points(found: Comparison, width: int) -> tuple[Table, int]:
    """The table in so many characters, and how many columns are left out for lack of room.

    How many rows a point keeps is shown in any case.
    """
    rows = found.table.to_pylist()
    means = [
        _Column(f"mean\n{one_line(name)}", [_number(row[f"mean_{name}"]) for row in rows])
        for name in found.means
    ]
    cuts = [
        _Column("\n".join(name.removeprefix("at_").rsplit("_", 1)), [_number(row[name]) for row in rows])
        for name in found.thresholds
    ]
    columns = [
        _Column("kept", [f"{row['kept']:,}" for row in rows]),
        _Column("share", [f"{row['share']:.2%}" for row in rows]),
    ]
    if found.table["total"] != found.table["kept"]:
        columns.append(_Column("with repeats", [f"{row['total']:,}" for row in rows]))
    columns += means[:MEANS]
    if any(found.languages):
        kept = [row["kept"] for row in rows]
        spoken = [_spoken(each, n) for each, n in zip(found.languages, kept, strict=True)]
        columns.append(_Column("languages", spoken, right=False))
    columns += [*cuts, *means[MEANS:]]
    left = width - _Column("point", [row["point"] for row in rows]).width
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("point", no_wrap=True)
    shown: list[_Column] = []
    for column in columns:
        if column.width <= left or not shown:
            left -= column.width
            shown.append(column)
            table.add_column(escape(column.title), justify="right" if column.right else "left", no_wrap=True)
    for row, *cells in zip(rows, *(column.cells for column in shown), strict=True):
        table.add_row(escaped(row["point"]), *map(escape, cells))
    return table, len(columns) - len(shown)


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
        table.add_row(f"{number + 1} {escaped(point)}", *cells)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _spoken(languages: Mapping[str, int], kept: int) -> str:
    first = list(languages.items())[:LANGUAGES]
    shares = ((one_line(name), rows / kept) for name, rows in first)
    return ", ".join(f"{name} {f'{share:.0%}' if share >= 0.005 else '<1%'}" for name, share in shares)
