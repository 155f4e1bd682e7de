"""The kinds of rules: what each evaluates, learns from the whole pool, and says about a row.

A rule that looks at the whole pool learns something small first (a cut, a file of losers). What it
learned is plain JSON; with it every rule is local to a row, so that judging needs one shard at a
time and learned values can be stored, explained and replayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.config.filters import DedupRule, ExperimentRule, Rule, TopRule, WhereRule
from curate.dataset import layout
from curate.dataset.workspace import FileRef, Workspace
from curate.rules.cuts import Spool, rows_of_fraction
from curate.rules.database import select
from curate.rules.duplicates import KeyTable, LoserFile
from curate.rules.expressions import Checker, Expression
from curate.rules.logic import Truth, truth_of
from curate.rules.pool import doubles

Learned = Mapping[str, Any]
"""What a rule learned, as JSON values."""

UidAt = Callable[[int], str]
"""The uid of the pool's row of that number."""


class Lookup(ABC):
    """Uids that a rule keeps in a file, read a shard at a time."""

    @abstractmethod
    def among(self, shard: str, uids: pa.ChunkedArray) -> pa.Table:
        """The listed rows among a shard's uids (``uid`` and what else is known of them)."""

    def close(self) -> None:
        """Close files."""
        return


class Learner(ABC):
    """Sees the whole pool once, shard by shard, and comes to what a rule needs to know."""

    @abstractmethod
    def add(self, samples: pa.Table) -> None:
        """One more shard. Raises ``duckdb.Error`` when an expression fails on a row."""

    @abstractmethod
    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        """What was learned, and files that were written for it."""


@dataclass(frozen=True)
class Rows:
    """What a rule is told about rows of a shard.

    Attributes:
        values: its evaluated expressions, as many as it has to judge.
        uids: ascending.
        listed: those of the uids that the rule's own file names, for a rule that has one.
    """

    values: Sequence[pa.ChunkedArray]
    uids: pa.ChunkedArray
    listed: pa.Array | None


@dataclass(frozen=True)
class Compiled(ABC):
    """A rule whose expressions are checked.

    Attributes:
        expressions: what has to be evaluated to learn it.
        judged: how many of them, from the first, have to be evaluated to judge a row.
    """

    name: str
    place: str
    text: str
    expressions: tuple[Expression, ...]
    judged: int

    kind: ClassVar[str]
    learns: ClassVar[bool] = False

    @property
    def columns(self) -> set[str]:
        """Names of all columns it reads."""
        return {c for e in self.expressions for c in e.columns}

    def learner(self, connection: duckdb.DuckDBPyConnection, scratch: Path, files: RuleFiles) -> Learner:
        """Only of rules that learn."""
        raise TypeError(f"{self.kind} learns nothing")

    def lookup(self, workspace: Workspace, learned: Learned, files: RuleFiles) -> Lookup | None:
        """The file of uids that judging needs, if it needs one."""
        return None

    @abstractmethod
    def judge(self, rows: Rows, learned: Learned) -> Truth:
        """Verdicts on rows of a shard, given what this rule learned."""


@dataclass(frozen=True)
class RuleFiles:
    """Where a rule of an experiment keeps a file of its own."""

    workspace: Workspace
    experiment: str
    number: int

    def path(self, what: str) -> str:
        """Path of the file; by the rule's number, because a rule's name may be any text."""
        return layout.selection_file(self.experiment, f"{what}_{self.number:02d}.parquet")


class Where(Compiled):
    """A condition on the row."""

    kind = "where"

    def judge(self, rows: Rows, learned: Learned) -> Truth:
        """Pass and fail as SQL says; NULL is missing."""
        return truth_of(rows.values[0])


@dataclass(frozen=True)
class Top(Compiled):
    """The best fraction of the pool."""

    fraction: float = 1.0
    lowest: bool = False

    kind = "top"
    learns = True

    def learner(self, connection: duckdb.DuckDBPyConnection, scratch: Path, files: RuleFiles) -> Learner:
        """Spools the values, then finds the cut."""
        return _TopLearner(self, connection, scratch / f"values_{files.number:02d}")

    def judge(self, rows: Rows, learned: Learned) -> Truth:
        """Better than the cut, or equal to it with a uid up to the cut's."""
        scores = doubles(rows.values[0])
        missing = np.isnan(scores)
        if learned["value"] is None:
            return Truth(np.zeros(len(scores), bool), ~missing)
        cut = float(learned["value"])
        better = scores < cut if self.lowest else scores > cut
        before = np.asarray(pc.less_equal(rows.uids, learned["uid"])).astype(bool)
        passed = better | ((scores == cut) & before)
        return Truth(passed, ~passed & ~missing)


class _TopLearner(Learner):
    def __init__(self, rule: Top, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.rule, self.connection = rule, connection
        self.spool = Spool(path, rule.lowest)

    def add(self, samples: pa.Table) -> None:
        values = select(self.connection, samples, [self.rule.expressions[0].sql])
        self.spool.add(doubles(values["0"]))

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        spool = self.spool
        asked = rows_of_fraction(self.rule.fraction, spool.rows)
        cut = spool.cut(asked)
        passed = min(asked, spool.present)
        facts = {
            "value": None if cut is None else cut.value if np.isfinite(cut.value) else str(cut.value),
            "uid": None if cut is None else uid_at(cut.position),
            "quantile": (spool.present - passed) / spool.present if spool.present else None,
            "rows": spool.rows,
            "rows_with_value": spool.present,
            "rows_asked": asked,
            "rows_passed": passed,
        }
        return facts, []


@dataclass(frozen=True)
class Dedup(Compiled):
    """One row per key."""

    keys: tuple[Expression, ...] = ()
    highest: Expression | None = None

    kind = "dedup"
    learns = True

    def learner(self, connection: duckdb.DuckDBPyConnection, scratch: Path, files: RuleFiles) -> Learner:
        """Stores the keys, then writes the file of losers."""
        return _DedupLearner(self, connection, files)

    def lookup(self, workspace: Workspace, learned: Learned, files: RuleFiles) -> Lookup | None:
        """The losers."""
        return _Losers(workspace, layout.selection_file(files.experiment, learned["file"]))

    def judge(self, rows: Rows, learned: Learned) -> Truth:
        """Everything passes but the losers."""
        assert rows.listed is not None
        lost = np.asarray(pc.is_in(rows.uids, rows.listed)).astype(bool)
        return Truth(~lost, lost)


class _DedupLearner(Learner):
    def __init__(self, rule: Dedup, connection: duckdb.DuckDBPyConnection, files: RuleFiles) -> None:
        self.files = files
        self.table = KeyTable(connection, f"keys_{files.number:02d}", rule.keys, rule.highest)

    def add(self, samples: pa.Table) -> None:
        self.table.add(samples)

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        ref, rows = self.table.write_losers(self.files.workspace, self.files.path("duplicates"))
        return {"file": ref.path.rsplit("/", 1)[-1], "rows_dropped": rows}, [ref]


class _Losers(Lookup):
    def __init__(self, workspace: Workspace, path: str) -> None:
        self.file = LoserFile(workspace, path)

    def among(self, shard: str, uids: pa.ChunkedArray) -> pa.Table:
        if not len(uids):
            return self.file.between("", "")
        return self.file.between(uids[0].as_py(), uids[-1].as_py())

    def close(self) -> None:
        self.file.close()


@dataclass(frozen=True)
class Other(Compiled):
    """What another experiment kept."""

    experiment: str = ""

    kind = "experiment"

    def lookup(self, workspace: Workspace, learned: Learned, files: RuleFiles) -> Lookup | None:
        """The other experiment's selection."""
        return _Selection(workspace, self.experiment)

    def judge(self, rows: Rows, learned: Learned) -> Truth:
        """What is listed passes; nothing is ever missing."""
        assert rows.listed is not None
        kept = np.asarray(pc.is_in(rows.uids, rows.listed)).astype(bool)
        return Truth(kept, ~kept)


class _Selection(Lookup):
    def __init__(self, workspace: Workspace, experiment: str) -> None:
        self.workspace, self.experiment = workspace, experiment

    def among(self, shard: str, uids: pa.ChunkedArray) -> pa.Table:
        return self.workspace.read_table(layout.selection(self.experiment, shard), ["uid"])


def compile_rule(name: str, rule: Rule, checker: Checker, place: str) -> Compiled:
    """Check the expressions of a rule.

    Raises:
        UserError: see ``Checker.check``.
    """
    if isinstance(rule, WhereRule):
        condition = checker.check(rule.where, place, "condition")
        return Where(name, place, condition.text, (condition,), 1)
    if isinstance(rule, TopRule):
        value = checker.check(rule.top, place, "number")
        word = "lowest" if rule.lowest else "highest"
        text = f"{word} {rule.fraction:g} by {value.text}"
        return Top(name, place, text, (value,), 1, rule.fraction, rule.lowest)
    if isinstance(rule, DedupRule):
        keys = tuple(checker.check(k, f"{place}.dedup", "key") for k in rule.dedup)
        best = checker.check(rule.highest, f"{place}.highest", "number") if rule.highest else None
        text = f"one row per {', '.join(rule.dedup)}" + (f", highest {rule.highest}" if best else "")
        return Dedup(name, place, text, keys + ((best,) if best else ()), 0, keys, best)
    assert isinstance(rule, ExperimentRule)
    return Other(name, place, f"kept by {rule.experiment}", (), 0, rule.experiment)
