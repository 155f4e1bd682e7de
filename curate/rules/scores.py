"""Rules that rank a number: bounds, the top of the rows, a sample by random numbers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.config.filters import ScoreRule
from curate.dataset.workspace import FileRef
from curate.rules.cuts import Floats, Spool, rows_of_fraction
from curate.rules.database import select
from curate.rules.draws import uniforms, words_of
from curate.rules.kinds import Compiled, Judging, Learned, Learner, Rows, RuleFiles, UidAt, Verdict
from curate.rules.logic import Mask, Truth
from curate.rules.pool import Batch, doubles


@dataclass(frozen=True, kw_only=True)
class Score(Compiled):
    """Bounds of a number.

    A bound is rounded to the column's own precision first, as SQL does: 0.35 as a 32-bit float is
    less than 0.35.
    """

    rule: ScoreRule

    kind = "score"

    @property
    def learns(self) -> bool:
        """Only quantiles do."""
        return self.rule.min_quantile is not None or self.rule.max_quantile is not None

    def learner(self, connection: duckdb.DuckDBPyConnection, scratch: Path, files: RuleFiles) -> Learner:
        """Spools the values, 8 bytes a row."""
        return _QuantileLearner(self, connection, scratch / f"score_{files.number}")

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """All bounds hold."""
        least, most = (float(learned[k]) if learned.get(k) is not None else None for k in ("least", "most"))
        rule = self.rule
        low = [self._rounded(v) for v in (rule.min,) if v is not None] + [
            v for v in (least,) if v is not None
        ]
        high = [self._rounded(v) for v in (rule.max,) if v is not None] + [
            v for v in (most,) if v is not None
        ]

        def judge(rows: Rows) -> Verdict:
            values = doubles(rows.values[0])
            missing = np.isnan(values)
            passed = ~missing
            for bound in low:
                passed &= values >= bound
            for bound in high:
                passed &= values <= bound
            if rule.above is not None:
                passed &= values > self._rounded(rule.above)
            if rule.below is not None:
                passed &= values < self._rounded(rule.below)
            return Verdict(Truth(passed, ~passed & ~missing))

        return Judging(judge)

    def account(self, learned: Learned) -> dict[str, Any]:
        """The bounds that were learned."""
        return {k: learned[k] for k in ("least", "most") if k in learned}

    def _rounded(self, bound: float) -> float:
        return float(np.float32(bound)) if self.expressions[0].type == "FLOAT" else bound


class _QuantileLearner(Learner):
    def __init__(self, rule: Score, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.rule, self.connection = rule, connection
        self.spool = Spool(path, lowest=False)

    def add(self, batch: Batch, reached: Mask | None) -> None:
        values = select(self.connection, batch.table, [self.rule.expressions[0].sql])
        self.spool.add(only(doubles(values["0"]), reached))

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        present, rule = self.spool.present, self.rule.rule
        facts: dict[str, Any] = {"rows_with_value": present}
        if rule.min_quantile is not None:
            facts["least"] = self._value(present - floor(Fraction(repr(rule.min_quantile)) * present))
        if rule.max_quantile is not None:
            facts["most"] = self._value(present - ceil(Fraction(repr(rule.max_quantile)) * present) + 1)
        return facts, []

    def _value(self, place: int) -> float | str | None:
        """The value at a place counted from the best, from 1; None when no row has a value."""
        cut = self.spool.cut(place)
        return None if cut is None else plain(cut.value)


def only(values: Floats, reached: Mask | None) -> Floats:
    """The values of the rows that a rule looks at, NaN for the others."""
    return values if reached is None else np.where(reached, values, np.nan)


def plain(value: float) -> float | str:
    """A number as JSON can hold it: infinity as text."""
    return value if np.isfinite(value) else str(value)


@dataclass(frozen=True, kw_only=True)
class Ranked(Compiled):
    """The so many best rows by a number that each row has of itself."""

    fraction: float | None
    count: int | None
    lowest: bool = False
    of: Literal["left", "pool"] = "left"

    @property
    def learns(self) -> bool:
        """Where the cut is."""
        return True

    @abstractmethod
    def numbers(self, values: list[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """What the rows are ranked by, float64, NaN for a row without."""

    def hopeless(self, values: list[pa.ChunkedArray]) -> Mask | None:
        """Rows that fail rather than being without a number."""
        return None

    def learner(self, connection: duckdb.DuckDBPyConnection, scratch: Path, files: RuleFiles) -> Learner:
        """Spools the numbers, 8 bytes a row."""
        return _CutLearner(self, connection, scratch / f"cut_{files.number}")

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """Better than the cut, or equal and not after it."""

        def judge(rows: Rows) -> Verdict:
            values = list(rows.values)
            numbers, never = self.numbers(values, rows.uids), self.hopeless(values)
            missing = np.isnan(numbers) if never is None else np.isnan(numbers) & ~never
            if learned["value"] is None:
                return Verdict(Truth(np.zeros(len(rows), bool), ~missing))
            cut = float(learned["value"])
            better = numbers < cut if self.lowest else numbers > cut
            before = np.asarray(pc.less_equal(rows.uids, learned["uid"])).astype(bool)
            passed = better | ((numbers == cut) & before)
            return Verdict(Truth(passed, ~passed & ~missing))

        return Judging(judge)


class _CutLearner(Learner):
    def __init__(self, rule: Ranked, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.rule, self.connection = rule, connection
        self.spool = Spool(path, rule.lowest)
        self.rows = 0

    def add(self, batch: Batch, reached: Mask | None) -> None:
        rule = self.rule
        columns: list[pa.ChunkedArray] = []
        if rule.expressions:
            columns = select(self.connection, batch.table, [e.sql for e in rule.expressions]).columns
        self.spool.add(only(rule.numbers(columns, batch.table["uid"]), reached))
        whole = reached is None or rule.of == "pool"
        self.rows += batch.table.num_rows if whole else int(np.count_nonzero(np.asarray(reached)))

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        rule, spool = self.rule, self.spool
        asked = rule.count or 0 if rule.fraction is None else rows_of_fraction(rule.fraction, self.rows)
        cut = spool.cut(asked)
        passed = min(asked, spool.present)
        facts = {
            "value": None if cut is None else plain(cut.value),
            "uid": None if cut is None else uid_at(cut.position),
            "quantile": (spool.present - passed) / spool.present if spool.present else None,
            "rows": self.rows,
            "rows_with_value": spool.present,
            "rows_asked": asked,
            "rows_passed": passed,
        }
        return facts, []


@dataclass(frozen=True, kw_only=True)
class Top(Ranked):
    """The best rows by a column."""

    kind = "top"

    def numbers(self, values: list[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """The column."""
        return doubles(values[0])

    def note(self, learned: Learned, listed: pa.Table | None) -> str:
        """Where the cut is."""
        if learned["value"] is None:
            return "no row passes"
        value, uid, quantile = float(learned["value"]), learned["uid"], learned["quantile"]
        return f"cut at {value:.9g}, uid {uid}, quantile {quantile:.4f}"

    def account(self, learned: Learned) -> dict[str, Any]:
        """The value of the last row, and the share of rows with a value that did not pass."""
        return {"threshold": learned["value"], "quantile": learned["quantile"]}


@dataclass(frozen=True, kw_only=True)
class Sample(Ranked):
    """Rows drawn without replacement, by weight when there is an expression.

    By weight a row's number is log(u) / weight, u uniform: the largest are a draw one after the other
    with probabilities in proportion to the weights (Efraimidis and Spirakis, Weighted random sampling
    with a reservoir, 2006, algorithm A).
    """

    salt: int

    kind = "sample"

    def numbers(self, values: list[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """Random numbers; NaN without a finite positive weight."""
        drawn = uniforms(words_of(uids, self.salt))
        if not values:
            return drawn
        weights = doubles(values[0])
        usable = (weights > 0) & np.isfinite(weights)
        return np.where(usable, np.log(drawn) / np.where(usable, weights, 1.0), np.nan)

    def hopeless(self, values: list[pa.ChunkedArray]) -> Mask | None:
        """A weight of zero or less is never drawn."""
        return doubles(values[0]) <= 0 if values else None
