"""Exact deduplication: which rows are copies of which survivor, by DuckDB, spilling to disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import layout
from curate.dataset.workspace import FileRef, Workspace
from curate.rules.expressions import Expression
from curate.rules.keys import key_sql
from curate.rules.kinds import Compiled, Judging, Learned, Learner, Rows, RuleFiles, Verdict, rest
from curate.rules.logic import Mask, Truth
from curate.rules.uidfiles import GROUP_ROWS, UidFile, write_uid_file
from curate.samples.database import Database, registered
from curate.samples.pool import Batch, UidAt

SCHEMA = pa.schema([("uid", pa.string()), ("survivor", pa.string())])


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
class Dropping(Compiled):
    """A rule that learns a file of the rows that go, each with the row that stays in its place."""

    portable = False

    @property
    def learns(self) -> bool:
        """Which rows go."""
        return True

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """Everything passes but the losers."""
        losers = UidFile(files.workspace, layout.selection_file(files.experiment, learned["file"]))

        def judge(rows: Rows) -> Verdict:
            listed = losers.among(rows.uids)
            lost = np.asarray(pc.is_in(rows.uids, listed["uid"].combine_chunks())).astype(bool)
            return Verdict(Truth(~lost, lost), listed=listed)

        return Judging(judge, losers.close)

    def note(self, learned: Learned, listed: pa.Table | None) -> str:
        """What a row is a copy of."""
        return f"copy of {listed['survivor'][0].as_py()}" if listed is not None and listed.num_rows else ""


@dataclass(frozen=True, kw_only=True)
class Dedup(Dropping):
    """One row per key."""

    keys: tuple[Expression, ...]
    best: Expression | None

    kind = "dedup"

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Stores the keys, then writes the file of losers."""
        return _DedupLearner(self, connection, files)


class _DedupLearner(Learner):
    def __init__(self, rule: Dedup, connection: Database, files: RuleFiles) -> None:
        self.files = files
        self.table = KeyTable(connection, f"keys_{files.number:02d}", rule.keys, rule.best)

    def add(self, batch: Batch, reached: Mask | None) -> None:
        self.table.add(rest(batch, reached))

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        ref, rows = self.table.write_losers(self.files.workspace, self.files.path("duplicates"))
        return {"file": ref.path.rsplit("/", 1)[-1], "rows_dropped": rows}, [ref]
