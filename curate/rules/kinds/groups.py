"""The rules ``cap``, ``equal`` and ``top`` with ``by``: so many rows of each language, cluster, source."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.config.rules.cap import CapRule
from curate.config.rules.equal import EqualRule
from curate.config.rules.top import TopRule
from curate.dataset.workspace import FileRef, Workspace
from curate.rules.algorithms.spool import Floats, rows_of_fraction
from curate.rules.contract import (
    BoundRule,
    CompiledRule,
    Compiling,
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
from curate.rules.preference import BY_UID, Preference, negated, preference
from curate.rules.ranking import share_text
from curate.rules.sql.keys import key_text, looked_up
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


@dataclass(frozen=True)
class TopBy(Grouped):
    """The best fraction of each group, or so many rows of it."""

    settings: TopRule

    needs_value = True

    @classmethod
    def compile(cls, settings: TopRule, at: Compiling) -> TopBy:
        """See ``CompiledRule.compile``."""
        assert settings.by is not None
        value = at.number(settings.top)
        group = key_text(at.key(settings.by, "by"))
        best = f"{'lowest' if settings.lowest else 'highest'} {share_text(settings)} by {value.text}"
        value = negated(value) if settings.lowest else value
        text = f"{best} of each {settings.by}"
        return cls(at.name, at.place, settings, text, (group, value), 2, BY_UID)

    @property
    def kind(self) -> str:
        """Told apart from a ``top`` of all rows."""
        return "top_by"

    def allotted(self, smallest: int) -> Callable[[int], int]:
        """floor(fraction * n), or the count."""
        fraction, count = self.settings.fraction, self.settings.count or 0
        if fraction is None:
            return lambda rows: count
        return lambda rows: rows_of_fraction(fraction, rows)


@dataclass(frozen=True)
class Cap(Grouped):
    """At most so many rows of a group."""

    settings: CapRule

    whole_groups_pass = True

    @classmethod
    def compile(cls, settings: CapRule, at: Compiling) -> Cap:
        """See ``CompiledRule.compile``."""
        group = key_text(at.key(settings.cap))
        prefer = preference(at, settings.highest, settings.lowest, at.salt(settings.seed))
        text = f"at most {settings.at_most} of each {settings.cap}, {prefer.text}"
        expressions = (group, *prefer.expressions)
        return cls(at.name, at.place, settings, text, expressions, len(expressions), prefer)

    def allotted(self, smallest: int) -> Callable[[int], int]:
        """``at_most``, whatever the size of the group."""
        return lambda rows: self.settings.at_most


@dataclass(frozen=True)
class Equal(Grouped):
    """As many rows of each group as the smallest has."""

    settings: EqualRule

    @classmethod
    def compile(cls, settings: EqualRule, at: Compiling) -> Equal:
        """See ``CompiledRule.compile``."""
        group = key_text(at.key(settings.equal))
        prefer = preference(at, settings.highest, settings.lowest, at.salt(settings.seed))
        text = f"as many of each {settings.equal} as of the rarest, {prefer.text}"
        expressions = (group, *prefer.expressions)
        return cls(at.name, at.place, settings, text, expressions, len(expressions), prefer)

    def allotted(self, smallest: int) -> Callable[[int], int]:
        """Rows of the smallest group."""
        return lambda rows: smallest

    def account(self, learned: Learned) -> dict[str, Any]:
        """Also how many rows of each group stay."""
        return {**super().account(learned), "rows_each": learned["smallest"]}


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
