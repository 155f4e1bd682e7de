"""What a kind of rule is: what it evaluates, learns from the rows that it looks at, and says about a row.

A rule that looks at other rows learns something small first (a cut, counts, a file of uids). What it
learned is plain JSON, with files beside it where it is long; with it every rule is local to a row, so
that judging needs one shard at a time and learned values can be stored, explained and replayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from curate.config.rules.base import RuleSettings
from curate.dataset import layout
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import UserError
from curate.rules.algorithms.draws import salt_of
from curate.rules.cuts import Cut
from curate.rules.logic import Copies, Mask, Truth
from curate.rules.sql.expressions import Checker, Expression
from curate.samples.database import Database
from curate.samples.pool import Batch, UidAt, Uids

Learned = Mapping[str, Any]
"""What a rule learned, as JSON values."""

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """What a rule is told about rows.

    Attributes:
        values: its evaluated expressions, as many as it has to judge.
        uids: ascending, but for rules that take rows in any order; in the form that the rules ask for.
        shared: what rules have worked out of these rows that others want, too.
    """

    values: Sequence[pa.ChunkedArray]
    uids: pa.ChunkedArray
    shared: dict[Hashable, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.uids)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives; of the rules with the same key the first one makes it. Not to be changed."""
        if key not in self.shared:
            self.shared[key] = make()
        found: T = self.shared[key]
        return found


@dataclass(frozen=True)
class Verdict:
    """What a rule says about rows.

    Attributes:
        repeats: how often each row that passes is there; None: once.
        listed: what the rule's own file says about these uids, for a rule that has one.
    """

    truth: Truth
    repeats: Copies | None = None
    listed: pa.Table | None = None

    @classmethod
    def on_present(cls, values: pa.ChunkedArray, passed: Mask) -> Verdict:
        """Which rows pass, bool, shape (n,), where there is a value; NULL is missing."""
        missing = np.asarray(values.is_null()).astype(bool)
        return cls(Truth(passed & ~missing, ~passed & ~missing))


def _nothing_to_close() -> None:
    return


@dataclass(frozen=True)
class BoundRule:
    """A rule with all that it has to know to judge; ``close`` gives its files back."""

    judge: Callable[[Rows], Verdict]
    close: Callable[[], None] = field(default=_nothing_to_close)


class LearnedForm(NamedTuple):
    """What a rule of a kind has learned, to check what was learned elsewhere before it is believed.

    Attributes:
        values: key → whether a JSON value can stand there, see ``curate.rules.learned``.
        file: stem of the file whose name is under the key ``file``, see ``RuleFiles``; empty: there is none.
    """

    values: Mapping[str, Callable[[Any], bool]]
    file: str = ""


class Learner(ABC):
    """Sees the pool once and comes to what a rule needs to know."""

    @abstractmethod
    def add(self, batch: Batch, in_scope: Mask | None) -> None:
        """Some more shards. Raises ``duckdb.Error`` when an expression fails on a row.

        Args:
            batch: all rows of these shards.
            in_scope: bool, shape (n,): the rows that the rule looks at. None: all.
        """

    def joins(self, rule: CompiledRule) -> bool:
        """Take along another rule that looks at the same rows, if what it has to know comes out as well."""
        return False

    @abstractmethod
    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        """What was learned, and files that were written for it."""

    def joined(self, uid_at: UidAt) -> dict[str, dict[str, Any]]:
        """What the rules learned that were taken along, by their names. Asked for after ``finish``."""
        return {}


def rows_in_scope(batch: Batch, in_scope: Mask | None) -> pa.Table:
    """The rows of a batch that a rule looks at."""
    return batch.table if in_scope is None else batch.table.filter(pa.array(in_scope))


@dataclass(frozen=True)
class RuleFiles:
    """Where a rule of an experiment keeps files of its own."""

    workspace: Workspace
    experiment: str
    number: int

    def path(self, stem: str) -> str:
        """Path of a file to write; by the rule's number, because a rule's name may be any text."""
        return self.named(file_name(stem, self.number))

    def named(self, name: str) -> str:
        """Path of a file whose name was learned."""
        return layout.selection_file(self.experiment, name)


def file_name(stem: str, number: int) -> str:
    """Name of a file of the rule that has this number in its experiment."""
    return f"{stem}_{number:02d}.parquet"


@dataclass(frozen=True)
class Compiling:
    """A rule that is being compiled.

    Attributes:
        name: also decides what the rule draws, with its seed.
        checker: of the pool whose columns its expressions read.
        place: key path of the rule, begins every message.
    """

    name: str
    checker: Checker
    place: str

    def condition(self, text: str, key: str = "") -> Expression:
        """A checked expression that is true or false.

        Args:
            key: of the rule, under which it stands; empty: the one that tells the kind.

        Raises:
            UserError: see ``Checker.check``.
        """
        return self.checker.check(text, self.at(key), "condition")

    def number(self, text: str, key: str = "") -> Expression:
        """A checked expression that is a number; see ``condition``."""
        return self.checker.check(text, self.at(key), "number")

    def key(self, text: str, key: str = "") -> Expression:
        """A checked expression that may be anything; see ``condition``."""
        return self.checker.check(text, self.at(key), "key")

    def caption(self, text: str, key: str = "") -> Expression:
        """A checked expression that is text; see ``condition``."""
        found = self.key(text, key)
        if found.type != "VARCHAR":
            raise UserError(f"{self.at(key)}: '{text}' is {found.type}, not text")
        return found

    def salt(self, seed: int) -> int:
        """64 bits that tell what this rule draws from what others do."""
        return salt_of(self.name, seed)

    def at(self, key: str) -> str:
        """Key path of a key of the rule."""
        return f"{self.place}.{key}" if key else self.place


@dataclass(frozen=True)
class CompiledRule(ABC):
    """A rule whose expressions are checked.

    Attributes:
        name: of the rule in its experiment; what is drawn depends on the one that it was compiled under.
        place: key path, begins every message.
        text: what it keeps, for people, on a line.
        expressions: what has to be evaluated to learn it.
        judged: how many of them, from the first, have to be evaluated to judge a row.
        any_order: rows may come in any order, to learn it and to judge them.
        learns_uids, judges_uids: in which form it has to see uids, to learn and to judge.
        holds_rows: while it learns it has something of every row in memory; such rules learn by themselves.
    """

    name: str
    place: str
    settings: RuleSettings
    text: str
    expressions: tuple[Expression, ...]
    judged: int

    any_order: ClassVar[bool] = False
    learns_uids: ClassVar[Uids] = Uids.TEXT
    judges_uids: ClassVar[Uids] = Uids.TEXT
    holds_rows: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def compile(cls, settings: Any, at: Compiling) -> CompiledRule:
        """A rule of this kind from its settings, which are of the class that names this one.

        Raises:
            UserError: see ``Checker.check``; a column is of a type that the rule cannot use.
        """

    @classmethod
    def learned_form(cls, settings: Any) -> LearnedForm:
        """What such a rule learns, of a kind whose settings are ``transferable``."""
        return LearnedForm({})

    @property
    def kind(self) -> str:
        """What the account calls it."""
        return self.settings.kind

    @property
    def words(self) -> str:
        """What it keeps, as a phrase for people who do not know the config."""
        return self.text

    @property
    def learns(self) -> bool:
        """Whether it has to see other rows first."""
        return False

    @property
    def columns(self) -> set[str]:
        """Names of all columns it reads."""
        return {c for e in self.expressions for c in e.columns}

    @property
    def vectors(self) -> tuple[tuple[str, str], ...]:
        """Alias and modality of the stored embeddings that it reads; none of most rules."""
        return ()

    def check_files(self) -> None:
        """Raises UserError when a file that the rule names cannot be used."""
        return

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Only of rules that learn."""
        raise TypeError(f"{self.kind} learns nothing")

    @abstractmethod
    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """Ready to judge rows of any shard, given what this rule learned.

        Raises:
            UserError: a file that the rule names cannot be used.
        """

    def cuts(self, learned: Learned) -> tuple[Cut, ...]:
        """The comparisons of columns with numbers that it makes.

        Args:
            learned: what it learned; empty: nothing yet, so that values may be None.
        """
        return ()

    def bound(self, learned: Learned) -> Cut | None:
        """The one comparison that says all about what it keeps; None when there is more to it."""
        return None

    def note(self, learned: Learned, listed: pa.Table | None) -> str:
        """What it learned that matters for the one row that ``listed`` is about."""
        return ""

    def account(self, learned: Learned) -> dict[str, Any]:
        """What the funnel shows of what it learned."""
        return {}
