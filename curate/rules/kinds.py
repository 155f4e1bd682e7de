"""What a kind of rule is: what it evaluates, learns from the rows it looks at, and says about a row.

A rule that looks at other rows learns something small first (a cut, counts, a file of uids). What it
learned is plain JSON, with files beside it where it is long; with it every rule is local to a row, so
that judging needs one shard at a time and learned values can be stored, explained and replayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pyarrow as pa

from curate.dataset import layout
from curate.dataset.workspace import FileRef, Workspace
from curate.rules.expressions import Expression
from curate.rules.logic import Copies, Mask, Truth
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


def _nothing_to_close() -> None:
    return


@dataclass(frozen=True)
class Judging:
    """A rule that knows all it needs; ``close`` gives files back."""

    judge: Callable[[Rows], Verdict]
    close: Callable[[], None] = field(default=_nothing_to_close)


class Learner(ABC):
    """Sees the pool once and comes to what a rule needs to know."""

    @abstractmethod
    def add(self, batch: Batch, reached: Mask | None) -> None:
        """Some more shards. Raises ``duckdb.Error`` when an expression fails on a row.

        Args:
            batch: all rows of these shards.
            reached: bool, shape (n,): the rows that the rule looks at. None: all.
        """

    def joins(self, rule: Compiled) -> bool:
        """Take along another rule that looks at the same rows, if what it has to know comes out as well."""
        return False

    @abstractmethod
    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        """What was learned, and files that were written for it."""

    def joined(self, uid_at: UidAt) -> dict[str, dict[str, Any]]:
        """What the rules learned that were taken along, by their names. Asked for after ``finish``."""
        return {}


def rest(batch: Batch, reached: Mask | None) -> pa.Table:
    """The rows of a batch that a rule looks at."""
    return batch.table if reached is None else batch.table.filter(pa.array(reached))


@dataclass(frozen=True)
class RuleFiles:
    """Where a rule of an experiment keeps files of its own."""

    workspace: Workspace
    experiment: str
    number: int

    def path(self, what: str) -> str:
        """Path of a file; by the rule's number, because a rule's name may be any text."""
        return layout.selection_file(self.experiment, f"{what}_{self.number:02d}.parquet")


@dataclass(frozen=True)
class Compiled(ABC):
    """A rule whose expressions are checked.

    Attributes:
        expressions: what has to be evaluated to learn it.
        judged: how many of them, from the first, have to be evaluated to judge a row.
        portable: what it learned says something about rows of another pool.
        vectors: alias and modality of the stored embeddings that it reads.
        any_order: rows may come in any order, to learn it and to judge them.
        learns_uids, judges_uids: in which form it has to see uids, to learn and to judge.
        holds_rows: while it learns it has something of every row in memory; such rules learn by themselves.
    """

    name: str
    place: str
    text: str
    expressions: tuple[Expression, ...]
    judged: int

    kind: ClassVar[str]
    portable: ClassVar[bool] = True
    any_order: ClassVar[bool] = False
    learns_uids: ClassVar[Uids] = Uids.TEXT
    judges_uids: ClassVar[Uids] = Uids.TEXT
    holds_rows: ClassVar[bool] = False

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
        """None of most rules."""
        return ()

    def check_files(self) -> None:
        """Raises UserError when a file that the rule names cannot be used."""
        return

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Only of rules that learn."""
        raise TypeError(f"{self.kind} learns nothing")

    @abstractmethod
    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """Ready to judge rows of any shard, given what this rule learned.

        Raises:
            UserError: a file that the rule names cannot be used.
        """

    def note(self, learned: Learned, listed: pa.Table | None) -> str:
        """What it learned that matters for the one row that ``listed`` is about."""
        return ""

    def account(self, learned: Learned) -> dict[str, Any]:
        """What the funnel shows of what it learned."""
        return {}
