"""Exact deduplication: which rows are copies of which survivor, by DuckDB, spilling to disk."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.rules.database import registered
from curate.rules.expressions import Expression

SCHEMA = pa.schema([("uid", pa.string()), ("survivor", pa.string())])
_GROUP_ROWS = 65_536


class KeyTable:
    """The keys of one dedup rule, in a table of DuckDB's.

    A row whose key has a NULL (or NaN) part has no duplicates and is not stored.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str,
        keys: Sequence[Expression],
        highest: Expression | None,
    ) -> None:
        self.connection, self.name = connection, name
        self.keys = [f"k{i}" for i in range(len(keys))]
        parts = [f"({_key_sql(e)}) AS {k}" for k, e in zip(self.keys, keys, strict=True)]
        # Adding 0.0 makes -0.0 and 0.0 one value; NaN ranks with NULL, after every number.
        rank = f"nullif(({highest.sql}) + 0.0, 'nan'::DOUBLE)" if highest else "NULL::DOUBLE"
        self._select = f"SELECT {', '.join(parts)}, {rank} AS rank, uid FROM samples"
        self._created = False

    def add(self, samples: pa.Table) -> None:
        """Store the keys of a shard.

        Raises:
            duckdb.Error: a key expression fails on a row.
        """
        present = " AND ".join(f"{k} IS NOT NULL" for k in self.keys)
        query = f"SELECT * FROM ({self._select}) WHERE {present}"
        with registered(self.connection, "samples", samples):
            if self._created:
                self.connection.execute(f"INSERT INTO {self.name} {query}")
            else:
                self.connection.execute(f"CREATE TEMP TABLE {self.name} AS {query}")
                self._created = True

    def write_losers(self, workspace: Workspace, path: str) -> tuple[FileRef, int]:
        """Write every row that is not the survivor of its key, with that survivor, in uid order.

        The survivor has the highest rank (NULL is lowest); of equals the one with the smallest uid.

        Returns:
            The committed file and its rows.
        """
        rows = 0
        with workspace.writing(path) as temporary:
            with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
                for table in _regrouped(self._losers()) if self._created else ():
                    writer.write_table(table.cast(SCHEMA))
                    rows += table.num_rows
            ref = ref_of(temporary, path)
        self.connection.execute(f"DROP TABLE IF EXISTS {self.name}")
        return ref, rows

    def _losers(self) -> pa.RecordBatchReader:
        keys = ", ".join(self.keys)
        # Most rows have no copy: the window sorts those that have.
        return self.connection.sql(
            f"""
            WITH copied AS (SELECT {keys} FROM {self.name} GROUP BY {keys} HAVING count(*) > 1),
            ranked AS (
                SELECT uid, first_value(uid) OVER (
                    PARTITION BY {keys} ORDER BY rank DESC NULLS LAST, uid
                ) AS survivor
                FROM {self.name} SEMI JOIN copied USING ({keys})
            )
            SELECT uid, survivor FROM ranked WHERE uid <> survivor ORDER BY uid
            """
        ).to_arrow_reader(_GROUP_ROWS)


def _regrouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows in tables of equal length: how DuckDB cuts them depends on its threads."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        while rows >= _GROUP_ROWS:
            table = pa.Table.from_batches(held)
            yield table.slice(0, _GROUP_ROWS)
            held = table.slice(_GROUP_ROWS).to_batches()
            rows -= _GROUP_ROWS
    if rows:
        yield pa.Table.from_batches(held)


def _key_sql(expression: Expression) -> str:
    if expression.type in ("FLOAT", "DOUBLE"):
        return f"nullif(({expression.sql}\n) + 0.0, 'nan'::DOUBLE)"
    return f"{expression.sql}\n"


class LoserFile:
    """Looks up uids in a file of losers; holds one row group."""

    def __init__(self, workspace: Workspace, path: str) -> None:
        self._stack = ExitStack()
        local = self._stack.enter_context(workspace.local(path))
        self._file = self._stack.enter_context(pq.ParquetFile(local))
        groups = (self._file.metadata.row_group(i) for i in range(self._file.num_row_groups))
        bounds = [g.column(0).statistics for g in groups if g.num_rows]
        self._first, self._last = [b.min for b in bounds], [b.max for b in bounds]
        self._held: tuple[int, pa.Table] | None = None

    def between(self, first: str, last: str) -> pa.Table:
        """Losers whose uid is in ``[first, last]``: uid and survivor, in uid order."""
        groups = range(bisect.bisect_left(self._last, first), bisect.bisect_right(self._first, last))
        tables = [self._group(i) for i in groups]
        table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        uids = table["uid"]
        return table.filter(pc.and_(pc.greater_equal(uids, first), pc.less_equal(uids, last)))

    def _group(self, index: int) -> pa.Table:
        if self._held is None or self._held[0] != index:
            self._held = (index, self._file.read_row_group(index))
        return self._held[1]

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
