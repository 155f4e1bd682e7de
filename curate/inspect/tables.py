"""Printing and writing of small results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from curate.errors import UserError

CELL = 60
"""Characters of a cell that are shown."""


def print_table(console: Console, table: pa.Table, limit: int) -> None:
    """The first rows of an Arrow table; says how many there are when it does not show all."""
    shown = Table(header_style="bold")
    for field in table.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        shown.add_column(field.name, justify="right" if number else "left", overflow="fold")
    for row in table.slice(0, limit).to_pylist():
        shown.add_row(*(escape(cell(v)) for v in row.values()))
    console.print(shown)
    if table.num_rows > limit:
        console.print(f"{limit:,} of {table.num_rows:,} rows; --limit or --output for more")


def print_hits(console: Console, hits: Sequence[Any]) -> None:
    """Search results (``curate.index.search.Hit``), best first."""
    for hit in hits:
        console.print(f"[bold]{hit.similarity:.4f}[/]  {escape(cell(hit.text))}", highlight=False)
        console.print(f"        [dim]{hit.uid}  {escape(hit.url)}[/]", highlight=False, soft_wrap=True)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a result as parquet, csv or jsonl, by the file's name."""
    try:
        if path.suffix == ".parquet":
            pq.write_table(table, path)
        elif path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        elif path.suffix == ".jsonl":
            import json

            with path.open("w") as stream:
                for batch in table.to_batches(max_chunksize=1024):
                    stream.writelines(
                        json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in batch.to_pylist()
                    )
        else:
            raise UserError(f"--output {path}: the name must end in .parquet, .csv or .jsonl")
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror})") from None


def cell(value: Any) -> str:
    """A value as one short line."""
    if value is None:
        return "NULL"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
