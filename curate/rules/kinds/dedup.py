"""The rule ``dedup``: which rows are copies of which survivor, exactly, by DuckDB, spilling to disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.config.rules.dedup import DedupRule
from curate.dataset.workspace import FileRef, Workspace
from curate.rules.contract import Compiling, Learner, RuleFiles, rows_in_scope
from curate.rules.logic import Mask
from curate.rules.losers import SCHEMA, STEM, Dropping
from curate.rules.preference import preference
from curate.rules.sql.expressions import Expression
from curate.rules.sql.keys import key_sql
from curate.rules.uidfiles import GROUP_ROWS, write_uid_file
from curate.samples.database import Database, registered
from curate.samples.pool import Batch, UidAt


class KeyTable:
    """The keys of one dedup rule, in a table of DuckDB's.

    A row whose key has a NULL (or NaN) part has no duplicates and is not stored.
    """

    def __init__(
        self,
        connection: Database,
        name: str,
        keys: Sequence[Expression],
        highest: Expression | None,
    ) -> None:
        self.connection, self.name = connection, name
        self.keys = [f"k{i}" for i in range(len(keys))]
        parts = [f"({key_sql(e)}) AS {k}" for k, e in zip(self.keys, keys, strict=True)]
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
        losers = self._losers() if self._created else ()
        written = write_uid_file(workspace, path, SCHEMA, losers)
        self.connection.execute(f"DROP TABLE IF EXISTS {self.name}")
        return written

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
        ).to_arrow_reader(GROUP_ROWS)


@dataclass(frozen=True)
class Dedup(Dropping):
    """One row per key."""

    settings: DedupRule
    keys: tuple[Expression, ...]
    best: Expression | None

    @classmethod
    def compile(cls, settings: DedupRule, at: Compiling) -> Dedup:
        """See ``CompiledRule.compile``."""
        keys = tuple(at.key(key, "dedup") for key in settings.dedup)
        prefer = preference(at, settings.highest, settings.lowest)
        text = f"one row per {', '.join(settings.dedup)}" + (f", {prefer.text}" if prefer.by else "")
        return cls(at.name, at.place, settings, text, keys + prefer.expressions, 0, keys, prefer.by)

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Stores the keys, then writes the file of losers."""
        return _DedupLearner(self, connection, files)


class _DedupLearner(Learner):
    def __init__(self, rule: Dedup, connection: Database, files: RuleFiles) -> None:
        self.files = files
        self.table = KeyTable(connection, f"keys_{files.number:02d}", rule.keys, rule.best)

    def add(self, batch: Batch, in_scope: Mask | None) -> None:
        self.table.add(rows_in_scope(batch, in_scope))

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        ref, rows = self.table.write_losers(self.files.workspace, self.files.path(STEM))
        return {"file": ref.path.rsplit("/", 1)[-1], "rows_dropped": rows}, [ref]
