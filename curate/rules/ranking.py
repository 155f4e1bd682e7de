"""Rules that rank a number: bounds, the top of the rows, a sample by random numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from curate.config.rules.sample import SampleRule
from curate.config.rules.top import TopRule
from curate.dataset.uid import halves, usable_halves
from curate.dataset.workspace import FileRef
from curate.rules.algorithms.spool import Floats, LastRow, Spool, rows_of_fraction
from curate.rules.contract import (
    BoundRule,
    CompiledRule,
    Learned,
    LearnedForm,
    Learner,
    Rows,
    RuleFiles,
    Verdict,
)
from curate.rules.cuts import plain
from curate.rules.learned import is_number, is_share, is_uid_or_none
from curate.rules.logic import Mask, Truth
from curate.rules.sql.expressions import evaluate
from curate.samples.database import Database
from curate.samples.pool import Batch, UidAt, Uids


class RowCounts(NamedTuple):
    """What a look at the pool counted.

    Attributes:
        rows: that the rules looked at.
        pool: all rows.
        present: rows with a value among those that the rules looked at.
    """

    rows: int
    pool: int
    present: int


Places = Mapping[int, LastRow | None]
"""Place counted from the best, from 1 → the row there; of a place behind the last one, the last."""


_NO_UIDS = pa.chunked_array([], pa.string())


class Ranking(CompiledRule):
    """A rule that looks up rows in a ranking. Rules of one ranking need but one look at the pool."""

    any_order = True
    learns_uids = Uids.NONE
    judges_uids = Uids.RAW

    @property
    @abstractmethod
    def ranking(self) -> tuple[str, ...]:
        """Equal for rules that rank rows alike; ``low`` comes first where low values are the best."""

    @abstractmethod
    def numbers(self, values: Sequence[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """What the rows are ranked by, float64, NaN for a row without."""

    @abstractmethod
    def places(self, counts: RowCounts) -> list[int]:
        """The places that it wants to look up."""

    @abstractmethod
    def facts(self, counts: RowCounts, places: Places, uid_at: UidAt) -> dict[str, Any]:
        """What it learns from the rows there."""

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Spools the numbers, 8 bytes a row."""
        return _RankLearner(self, connection, scratch / f"ranks_{files.number}")

    def ranked(self, rows: Rows) -> Floats:
        """The numbers of rows that are judged, worked out once for all rules of this ranking."""
        return rows.once(self.ranking, lambda: self.numbers(rows.values, rows.uids))


class _RankLearner(Learner):
    def __init__(self, rule: Ranking, connection: Database, path: Path) -> None:
        self.rules, self.connection = [rule], connection
        self.spool = Spool(path, lowest=rule.ranking[0] == "low")
        self.rows = self.pool = 0
        self.learned: dict[str, dict[str, Any]] = {}

    def joins(self, rule: CompiledRule) -> bool:
        if not isinstance(rule, Ranking) or rule.ranking != self.rules[0].ranking:
            return False
        self.rules.append(rule)
        return True

    def add(self, batch: Batch, in_scope: Mask | None) -> None:
        rule, rows = self.rules[0], batch.table.num_rows
        values = evaluate(self.connection, batch.table, rule.expressions)
        columns = [values[e.sql] for e in rule.expressions]
        uids = batch.table["uid"] if rule.learns_uids else _NO_UIDS
        numbers = rule.numbers(columns, uids)
        self.spool.add(numbers if in_scope is None else np.where(in_scope, numbers, np.nan))
        self.pool += rows
        self.rows += rows if in_scope is None else int(np.count_nonzero(in_scope))

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        counts = RowCounts(self.rows, self.pool, self.spool.present)
        places = self.spool.cuts({place for rule in self.rules for place in rule.places(counts)})
        if not uid_at.ordered:
            places = {place: cut and self._by_uid(cut, uid_at) for place, cut in places.items()}
        self.learned = {rule.name: rule.facts(counts, places, uid_at) for rule in self.rules}
        return self.learned[self.rules[0].name], []

    def _by_uid(self, cut: LastRow, uid_at: UidAt) -> LastRow:
        """The last by uid, not by number, of the rows of this value. Memory: 50 bytes for each of them."""
        rows = self.spool.equal(cut.value)
        uids = uid_at.all(rows)
        last = np.lexsort((uids["f1"], uids["f0"]))[cut.nth - 1]
        return replace(cut, position=int(rows[last]))

    def joined(self, uid_at: UidAt) -> dict[str, dict[str, Any]]:
        return {rule.name: self.learned[rule.name] for rule in self.rules[1:]}


@dataclass(frozen=True)
class Best(Ranking):
    """The so many best rows by a number that each row has of itself."""

    settings: TopRule | SampleRule

    learns = True

    @property
    def lowest(self) -> bool:
        """Whether low numbers are the better ones."""
        return False

    @property
    def of(self) -> Literal["left", "pool"]:
        """Which rows a fraction is of."""
        return "left"

    @classmethod
    def learned_form(cls, settings: TopRule | SampleRule) -> LearnedForm:
        """The last row that passes."""
        return LearnedForm({"value": is_number, "uid": is_uid_or_none, "quantile": is_share})

    def places(self, counts: RowCounts) -> list[int]:
        """The last row that passes."""
        return [self._asked(counts)]

    def facts(self, counts: RowCounts, places: Places, uid_at: UidAt) -> dict[str, Any]:
        """Value and uid of the last row that passes; None when none does."""
        asked = self._asked(counts)
        cut, passed = places[asked], min(asked, counts.present)
        return {
            "value": None if cut is None else plain(cut.value),
            "uid": None if cut is None else uid_at(cut.position),
            "quantile": (counts.present - passed) / counts.present if counts.present else None,
            "rows": counts.pool if self.of == "pool" else counts.rows,
            "rows_with_value": counts.present,
            "rows_asked": asked,
            "rows_passed": passed,
        }

    def _asked(self, counts: RowCounts) -> int:
        if self.settings.fraction is None:
            return self.settings.count or 0
        return rows_of_fraction(self.settings.fraction, counts.pool if self.of == "pool" else counts.rows)

    def hopeless(self, values: Sequence[pa.ChunkedArray]) -> Mask | None:
        """Rows that fail rather than being without a number."""
        return None

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """Better than the cut, or equal and not after it."""

        def judge(rows: Rows) -> Verdict:
            numbers, never = self.ranked(rows), self.hopeless(rows.values)
            missing = np.isnan(numbers) if never is None else np.isnan(numbers) & ~never
            if learned["value"] is None:
                return Verdict(Truth(np.zeros(len(rows), bool), ~missing))
            cut = float(learned["value"])
            passed = numbers < cut if self.lowest else numbers > cut
            equal = np.flatnonzero(numbers == cut)
            if len(equal):
                mine, last = (
                    usable_halves(rows.uids.take(pa.array(equal))),
                    halves(pa.array([learned["uid"]])),
                )
                passed[equal] = (mine["f0"] < last["f0"]) | (
                    (mine["f0"] == last["f0"]) & (mine["f1"] <= last["f1"])
                )
            return Verdict(Truth(passed, ~passed & ~missing))

        return BoundRule(judge)


def share_text(settings: TopRule | SampleRule) -> str:
    """How many rows are asked for."""
    return f"{settings.fraction:g}" if settings.fraction is not None else f"{settings.count:,} rows"
