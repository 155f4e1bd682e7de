"""Printing and writing of small results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.cells import cell_len
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from curate.engine.progress import counted
from curate.errors import UserError
from curate.terminal import one_line

CELL = 64
"""Characters of a cell that are shown: a digest is whole."""

VALUE = 1000
"""Characters of a value that are shown where there is room."""


def print_table(console: Console, table: pa.Table, limit: int) -> None:
    """The first rows of an Arrow table; says how many there are when it does not show all.

    A table that is wider than the terminal is printed record by record, a line for each value; what is not
    for a terminal is printed whole.
    """
    rows = list(zip(*(column.to_pylist() for column in table.slice(0, limit).columns), strict=True))
    if not table.num_rows:
        names = ", ".join(map(one_line, table.column_names))
        console.print(Text(f"no rows ({names})"), soft_wrap=True)
    elif rows:
        length = CELL if console.is_terminal else VALUE
        shown = Table(header_style="bold")
        for field in table.schema:
            number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            shown.add_column(Text(cell(field.name)), justify="right" if number else "left", no_wrap=True)
        for row in rows:
            shown.add_row(*(Text(cell(value, length)) for value in row))
        if natural_width(console, shown) <= console.width or not console.is_terminal:
            print_whole(console, shown)
        else:
            _print_records(console, table.column_names, rows)
    if table.num_rows > limit:
        some = f"{limit:,} of {counted(table.num_rows, 'row')}"
        console.print(f"{some}; --limit or --output for more", highlight=False, soft_wrap=True)


def _print_records(console: Console, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A line for every value, a rule between records. The terminal breaks what is longer than a line."""
    labels = [cell(name) for name in names]
    width = max(map(cell_len, labels))
    for i, row in enumerate(rows):
        if i:
            console.print(Rule(style="dim"))
        for label, value in zip(labels, row, strict=True):
            space = " " * (width - cell_len(label) + 2)
            console.print(Text.assemble((label, "bold"), space, cell(value, VALUE)), soft_wrap=True)


def natural_width(console: Console, table: Table) -> int:
    """Characters of the longest line of a table in which nothing is cut or folded."""
    return console.measure(table, options=console.options.update(width=1_000_000)).maximum


def print_whole(console: Console, table: Table) -> None:
    """Print a table in its natural width, also where that is more than the console's."""
    table.width = natural_width(console, table)
    console.print(table, crop=False)


def print_hits(console: Console, hits: Sequence[Any]) -> None:
    """Search results (``curate.index.search.Hit``), best first."""
    for hit in hits:
        similarity = (f"{hit.similarity:.4f}", "bold")
        console.print(Text.assemble(similarity, f"  {cell(hit.text)}"), soft_wrap=True)
        where = f"{one_line(hit.uid)}  {one_line(hit.url)}"
        console.print(Text.assemble("        ", (where, "dim")), soft_wrap=True)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a result as parquet, csv or jsonl, by the file's name."""
    try:
        if path.suffix == ".parquet":
            pq.write_table(table, path)
        elif path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        elif path.suffix == ".jsonl":
            with path.open("w", encoding="utf-8") as stream:
                for batch in table.to_batches(max_chunksize=1024):
                    stream.writelines(
                        json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in batch.to_pylist()
                    )
        else:
            raise UserError(f"--output {path}: the name must end in .parquet, .csv or .jsonl")
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror})") from None
    except pa.ArrowException as error:
        said = " ".join(str(error).split())
        raise UserError(f"--output {path}: a column cannot be written to such a file ({said})") from None


def cell(value: Any, length: int = CELL) -> str:
    """A value as one short line."""
    if value is None:
        return "NULL"
    text = one_line(f"{value:.6g}" if isinstance(value, float) else str(value))
    return text if len(text) <= length else text[: length - 1] + "…"
