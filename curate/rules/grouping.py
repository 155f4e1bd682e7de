"""Rules that cut groups of rows: so many of each language, of each cluster, of each source."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset.workspace import FileRef, Workspace
from curate.rules.algorithms.spool import Floats
from curate.rules.contract import (
    BoundRule,
    CompiledRule,
    Learned,
    LearnedForm,
    Learner,
    Rows,
    RuleFiles,
    Verdict,
    rows_in_scope,
)
from curate.rules.learned import is_count, is_text
from curate.rules.logic import Mask, Truth
from curate.rules.preference import Preference
from curate.rules.sql.keys import looked_up
from curate.rules.uidfiles import GROUP_ROWS
from curate.samples.database import Database, registered, select
from curate.samples.pool import Batch, UidAt, doubles

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("value", pa.float64()),
        ("uid", pa.string()),
        ("rows", pa.int64()),
        ("passed", pa.int64()),
    ]
)
"""Of a group: the last row that passes (NULL: none does), its rows, and how many of them pass."""

_STEM = "cuts"


@dataclass(frozen=True)
class Grouped(CompiledRule):
    """The best rows of each group.

    The first of its expressions names the group, as text; NULL is a missing value.

    Attributes:
        prefer: which rows of a group are better.
        needs_value: a row without a value to rank by is missing; otherwise it ranks last.
    """

    prefer: Preference
    needs_value: ClassVar[bool] = False
    any_order = True
    learns = True
    whole_groups_pass: ClassVar[bool] = False
    """A group that no cut is known of passes."""

    @classmethod
    def learned_form(cls, settings: Any) -> LearnedForm:
        """A file with the cut of every group, and how many groups there are."""
        return LearnedForm(
            {"file": is_text, **dict.fromkeys(("groups", "smallest", "groups_cut"), is_count)}, _STEM
        )

    @abstractmethod
    def allotted(self, smallest: int) -> Callable[[int], int]:
        """How many rows of a group of so many pass, given how many the smallest group has."""

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Stores group, number and uid of every row in DuckDB, which spills."""
        return _GroupLearner(self, connection, files)

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """Better than the cut of the row's group, or equal and not after it. All cuts are in memory."""
        cuts = files.workspace.read_table(files.named(learned["file"]))
        places = {key: i for i, key in enumerate(cuts["key"].to_pylist())}
        # A last entry for groups that are not listed.
        value = np.append(doubles(cuts["value"]), -np.inf if self.whole_groups_pass else np.inf)
        uid = pa.concat_arrays([*cuts["uid"].chunks, pa.array([None], pa.string())])

        def judge(rows: Rows) -> Verdict:
            place = looked_up(rows.values[0], places)
            ranks = self.ranks(list(rows.values[1:]), rows.uids)
            missing = np.asarray(rows.values[0].is_null()).astype(bool) | np.isnan(ranks)
            cut = value[place]
            passed = ranks > cut
            if self.whole_groups_pass:
                passed |= place < 0
            equal = ranks == cut
            if equal.any():
                at = np.flatnonzero(equal)
                last = uid.take(pa.array(place[at] % len(value)))
                before = pc.less_equal(rows.uids.take(pa.array(at)), last).fill_null(False)
                passed[at] |= np.asarray(before).astype(bool)
            passed &= ~missing
            return Verdict(Truth(passed, ~passed & ~missing))

        return BoundRule(judge)

    def ranks(self, values: list[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """Larger is better; NaN for a row that is missing."""
        if self.needs_value:
            return doubles(values[0]) + 0.0
        return self.prefer.ranks(values, uids)

    def account(self, learned: Learned) -> dict[str, Any]:
        """How many groups were cut."""
        return {"groups": learned["groups"], "groups_cut": learned["groups_cut"]}


class _GroupLearner(Learner):
    def __init__(self, rule: Grouped, connection: Database, files: RuleFiles) -> None:
        self.rule, self.connection, self.files = rule, connection, files
        self.table = f"groups_{files.number:02d}"
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {self.table} (key VARCHAR, rank DOUBLE, uid VARCHAR)"
        )

    def add(self, batch: Batch, in_scope: Mask | None) -> None:
        samples = rows_in_scope(batch, in_scope)
        rule = self.rule
        values = select(self.connection, samples, [e.sql for e in rule.expressions]).columns
        ranks = rule.ranks(values[1:], samples["uid"])
        ranks = pa.array(ranks, mask=np.isnan(ranks))
        rows = pa.table({"key": values[0], "rank": ranks, "uid": samples["uid"]})
        with registered(self.connection, "samples", rows):
            self.connection.execute(
                f"INSERT INTO {self.table} SELECT key, rank, uid FROM samples WHERE key IS NOT NULL"
            )

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        ((groups, smallest, largest),) = self.connection.execute(
            f"SELECT count(*), coalesce(min(n), 0), coalesce(max(n), 0) FROM (SELECT count(*) AS n "
            f"FROM {self.table} GROUP BY key)"
        ).fetchall()
        allotted = self.rule.allotted(smallest)
        # How many rows of each size of group pass is settled here, by exact arithmetic.
        sizes = [
            n
            for (n,) in self.connection.execute(
                f"SELECT DISTINCT n FROM (SELECT count(*) AS n FROM {self.table} GROUP BY key) ORDER BY n"
            ).fetchall()
        ]
        shares = pa.table(
            {"n": pa.array(sizes, pa.int64()), "k": pa.array([allotted(n) for n in sizes], pa.int64())}
        )
        with registered(self.connection, "shares", shares):
            ref, cut = self._write(self.files.workspace, self.files.path(_STEM))
        self.connection.execute(f"DROP TABLE {self.table}")
        facts = {
            "file": ref.path.rsplit("/", 1)[-1],
            "groups": groups,
            "smallest": smallest,
            "largest": largest,
            "groups_cut": cut,
        }
        return facts, [ref]

    def _write(self, workspace: Workspace, path: str) -> tuple[FileRef, int]:
        """The cut of every group that is cut, in order of the keys."""
        whole = "WHERE present > k" if self.rule.whole_groups_pass else ""
        reader = self.connection.sql(
            f"""
            WITH sized AS (
                SELECT key, count(*) AS n, count(rank) AS present FROM {self.table} GROUP BY key
            ),
            asked AS (SELECT key, n, present, k FROM sized JOIN shares USING (n) {whole}),
            ranked AS (
                SELECT key, rank, uid, n, present, k,
                    row_number() OVER (PARTITION BY key ORDER BY rank DESC NULLS LAST, uid) AS place
                FROM {self.table} JOIN asked USING (key)
            )
            SELECT key,
                CASE WHEN k > 0 AND present > 0 THEN rank END AS value,
                CASE WHEN k > 0 AND present > 0 THEN uid END AS uid,
                n AS rows, least(k, present) AS passed
            FROM ranked WHERE place = greatest(least(k, present), 1) ORDER BY key
            """
        ).to_arrow_reader(GROUP_ROWS)
        table = pa.Table.from_batches(reader, reader.schema).cast(SCHEMA)
        cut = int(np.count_nonzero(np.asarray(pc.less(table["passed"], table["rows"]))))
        return workspace.write_table(path, table), cut
