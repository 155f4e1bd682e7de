"""A DuckDB that can do nothing but compute: no files, no network, no extensions, locked settings."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "1GiB"
"""What DuckDB may hold before it spills to the scratch folder, whatever the size of the pool."""

MAX_THREADS = 8
"""More threads than this would want more memory than the limit for their sorts."""

_SETTINGS = {
    # A division by zero has no value; IEEE's NaN would compare as greater than every threshold.
    "ieee_floating_point_ops": "false",
    "error_on_division_by_zero": "false",
    "TimeZone": "'UTC'",
    "preserve_insertion_order": "true",
    "enable_external_access": "false",
    "lock_configuration": "true",
}


@contextlib.contextmanager
def reading_folder() -> Iterator[Path]:
    """A folder to spill to, among the system's temporaries (``TMPDIR``): for who only reads a workspace."""
    with tempfile.TemporaryDirectory(prefix="curate-filter-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Database:
    """An in-memory DuckDB that spills under ``scratch`` and reaches no other file.

    It is loaded and opened by the first query: many experiments need none, and loading it takes as long as
    judging some million rows.

    Args:
        scratch: an existing local folder.
        threads: default: one per core, at most ``MAX_THREADS``. The results do not depend on it.
        memory_limit: as DuckDB writes it, e.g. ``1GiB``.
    """

    def __init__(self, scratch: Path, threads: int | None, memory_limit: str) -> None:
        self._config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": threads or min(os.cpu_count() or 1, MAX_THREADS),
            "temp_directory": str(scratch / "duckdb"),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        self._stack = contextlib.ExitStack()

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        connection = self._stack.enter_context(duckdb.connect(":memory:", config=self._config))
        known = {name for (name,) in connection.execute("SELECT name FROM duckdb_settings()").fetchall()}
        for name, value in _SETTINGS.items():
            if name in known:
                connection.execute(f"SET {name} = {value}")
        return connection

    def execute(
        self, statement: str, parameters: Sequence[object] | None = None
    ) -> duckdb.DuckDBPyConnection:
        """Run a statement; the answer has what it gives."""
        return self._connection.execute(statement, parameters)

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """A query that runs when its rows are asked for."""
        return self._connection.sql(query)

    def register(self, name: str, table: pa.Table) -> None:
        """Give an Arrow table a name that SQL can use."""
        self._connection.register(name, table)

    def unregister(self, name: str) -> None:
        """Forget it."""
        self._connection.unregister(name)

    def close(self) -> None:
        """Give memory and files back; nothing when it was never opened."""
        self._stack.close()


@contextlib.contextmanager
def open_database(
    scratch: Path, threads: int | None = None, memory_limit: str = MEMORY_LIMIT
) -> Iterator[Database]:
    """A database, closed afterwards; see there."""
    with contextlib.closing(Database(scratch, threads, memory_limit)) as database:
        yield database


def sql_error() -> type[Exception]:
    """What a failed query raises. ``except sql_error():`` is only evaluated when something is raised."""
    import duckdb

    return duckdb.Error


def is_out_of_room(error: Exception) -> bool:
    """Whether a query failed for want of memory or disk, and not for what is in a row."""
    import duckdb

    return isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException))


@contextlib.contextmanager
def registered(connection: Database, name: str, table: pa.Table) -> Iterator[None]:
    """An Arrow table under a name that SQL can use."""
    connection.register(name, table)
    try:
        yield
    finally:
        connection.unregister(name)


def select(connection: Database, table: pa.Table, items: Sequence[str]) -> pa.Table:
    """Row-local SQL expressions over a table, in its row order; columns are named ``0``, ``1``, …

    Raises:
        duckdb.Error: an expression fails on a row.
    """
    parts = ", ".join(f'({sql}\n) AS "{i}"' for i, sql in enumerate(items))
    with registered(connection, "samples", table):
        return connection.sql(f"SELECT {parts} FROM samples").to_arrow_table()


def one_line(error: Exception | str) -> str:
    """DuckDB's message without its drawing of the query and its lists of candidates."""
    text = str(error).split("\n\nLINE", 1)[0].split("Candidate functions:", 1)[0]
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "…"
