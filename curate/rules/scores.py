"""Rules that rank a number: bounds, the top of the rows, a sample by random numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from curate.config.filters import ScoreRule
from curate.dataset.uid import halves, usable_halves
from curate.dataset.workspace import FileRef
from curate.rules.cuts import Cut, Floats, Spool, rows_of_fraction
from curate.rules.draws import uniforms, words_of
from curate.rules.expressions import evaluate
from curate.rules.kinds import Compiled, Judging, Learned, Learner, Rows, RuleFiles, Verdict
from curate.rules.logic import Mask, Truth
from curate.samples.database import Database
from curate.samples.pool import Batch, UidAt, Uids, doubles


class Seen(NamedTuple):
    """What a look at the pool counted.

    Attributes:
        rows: that the rules looked at.
        pool: all rows.
        present: rows with a value among those that the rules looked at.
    """

    rows: int
    pool: int
    present: int


Places = Mapping[int, Cut | None]
"""Place counted from the best, from 1 → the row there; of a place behind the last one, the last."""


_NO_UIDS = pa.chunked_array([], pa.string())


class Ranking(Compiled):
    """A rule that looks up rows in a ranking. Rules of one ranking need but one look at the pool."""

    any_order = True
    learns_uids = Uids.NONE
    judges_uids = Uids.RAW

    @property
    @abstractmethod
    def ranking(self) -> tuple[str, ...]:
        """The same for rules that rank the same rows alike; ``low`` comes first where low values are best."""

    @abstractmethod
    def numbers(self, values: Sequence[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """What the rows are ranked by, float64, NaN for a row without."""

    @abstractmethod
    def places(self, seen: Seen) -> list[int]:
        """The places that it wants to look up."""

    @abstractmethod
    def facts(self, seen: Seen, places: Places, uid_at: UidAt) -> dict[str, Any]:
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

    def joins(self, rule: Compiled) -> bool:
        if not isinstance(rule, Ranking) or rule.ranking != self.rules[0].ranking:
            return False
        self.rules.append(rule)
        return True

    def add(self, batch: Batch, reached: Mask | None) -> None:
        rule, rows = self.rules[0], batch.table.num_rows
        values = evaluate(self.connection, batch.table, rule.expressions)
        columns = [values[e.sql] for e in rule.expressions]
        uids = batch.table["uid"] if rule.learns_uids else _NO_UIDS
        numbers = rule.numbers(columns, uids)
        self.spool.add(numbers if reached is None else np.where(reached, numbers, np.nan))
        self.pool += rows
        self.rows += rows if reached is None else int(np.count_nonzero(reached))

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        seen = Seen(self.rows, self.pool, self.spool.present)
        places = self.spool.cuts({place for rule in self.rules for place in rule.places(seen)})
        if not uid_at.ordered:
            places = {place: cut and self._by_uid(cut, uid_at) for place, cut in places.items()}
        self.learned = {rule.name: rule.facts(seen, places, uid_at) for rule in self.rules}
        return self.learned[self.rules[0].name], []

    def _by_uid(self, cut: Cut, uid_at: UidAt) -> Cut:
        """The last by uid, not by number, of the rows of this value. Memory: 50 bytes for each of them."""
        rows = self.spool.equal(cut.value)
        uids = uid_at.all(rows)
        last = np.lexsort((uids["f1"], uids["f0"]))[cut.nth - 1]
        return replace(cut, position=int(rows[last]))

    def joined(self, uid_at: UidAt) -> dict[str, dict[str, Any]]:
        return {rule.name: self.learned[rule.name] for rule in self.rules[1:]}


@dataclass(frozen=True, kw_only=True)
class Score(Ranking):
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

    @property
    def ranking(self) -> tuple[str, ...]:
        """The highest values of the expression."""
        return "high", self.expressions[0].sql

    def numbers(self, values: Sequence[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """The expression."""
        return doubles(values[0])

    def places(self, seen: Seen) -> list[int]:
        """Where the quantiles are."""
        return [place for place in self._quantiles(seen.present) if place is not None]

    def facts(self, seen: Seen, places: Places, uid_at: UidAt) -> dict[str, Any]:
        """The values at the quantiles; None when no row has a value."""
        found: dict[str, Any] = {"rows_with_value": seen.present}
        for key, place in zip(("least", "most"), self._quantiles(seen.present), strict=True):
            if place is not None:
                cut = places[place]
                found[key] = None if cut is None else plain(cut.value)
        return found

    def _quantiles(self, present: int) -> tuple[int | None, int | None]:
        """Places of the least and the most value that pass, counted from the best, from 1."""
        low, high = self.rule.min_quantile, self.rule.max_quantile
        return (
            None if low is None else present - floor(Fraction(repr(low)) * present),
            None if high is None else present - ceil(Fraction(repr(high)) * present) + 1,
        )

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """All bounds hold. Where no row had a value to learn a quantile of, none passes."""
        unknown = any(k in learned and learned[k] is None for k in ("least", "most"))
        least, most = (float(learned[k]) if learned.get(k) is not None else None for k in ("least", "most"))
        rule = self.rule
        low = [self._rounded(v) for v in (rule.min,) if v is not None] + [
            v for v in (least,) if v is not None
        ]
        high = [self._rounded(v) for v in (rule.max,) if v is not None] + [
            v for v in (most,) if v is not None
        ]

        def judge(rows: Rows) -> Verdict:
            values = self.ranked(rows)
            missing = np.isnan(values)
            passed = np.zeros(len(values), bool) if unknown else ~missing
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
        if self.expressions[0].type != "FLOAT":
            return bound
        with np.errstate(over="ignore"):
            rounded = float(np.float32(bound))
        # Beyond all 32-bit floats it is still less than infinity.
        return rounded if np.isfinite(rounded) else bound


def plain(value: float) -> float | str:
    """A number as JSON can hold it: infinity as text."""
    return value if np.isfinite(value) else str(value)


@dataclass(frozen=True, kw_only=True)
class Ranked(Ranking):
    """The so many best rows by a number that each row has of itself."""

    fraction: float | None
    count: int | None
    lowest: bool = False
    of: Literal["left", "pool"] = "left"

    @property
    def learns(self) -> bool:
        """Where the cut is."""
        return True

    def places(self, seen: Seen) -> list[int]:
        """The last row that passes."""
        return [self._asked(seen)]

    def facts(self, seen: Seen, places: Places, uid_at: UidAt) -> dict[str, Any]:
        """Value and uid of the last row that passes; None when none does."""
        asked = self._asked(seen)
        cut, passed = places[asked], min(asked, seen.present)
        return {
            "value": None if cut is None else plain(cut.value),
            "uid": None if cut is None else uid_at(cut.position),
            "quantile": (seen.present - passed) / seen.present if seen.present else None,
            "rows": seen.pool if self.of == "pool" else seen.rows,
            "rows_with_value": seen.present,
            "rows_asked": asked,
            "rows_passed": passed,
        }

    def _asked(self, seen: Seen) -> int:
        if self.fraction is None:
            return self.count or 0
        return rows_of_fraction(self.fraction, seen.pool if self.of == "pool" else seen.rows)

    def hopeless(self, values: Sequence[pa.ChunkedArray]) -> Mask | None:
        """Rows that fail rather than being without a number."""
        return None

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
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

        return Judging(judge)


@dataclass(frozen=True, kw_only=True)
class Top(Ranked):
    """The best rows by a column."""

    kind = "top"

    @property
    def ranking(self) -> tuple[str, ...]:
        """The highest or lowest values of the column."""
        return "low" if self.lowest else "high", self.expressions[0].sql

    def numbers(self, values: Sequence[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
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
    learns_uids = Uids.RAW

    @property
    def ranking(self) -> tuple[str, ...]:
        """The highest of these random numbers."""
        return "high", "drawn", str(self.salt), *(e.sql for e in self.expressions)

    def numbers(self, values: Sequence[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """Random numbers; NaN without a finite positive weight."""
        drawn = uniforms(words_of(uids, self.salt))
        if not values:
            return drawn
        weights = doubles(values[0])
        usable = (weights > 0) & np.isfinite(weights)
        with np.errstate(over="ignore"):
            return np.where(usable, np.log(drawn) / np.where(usable, weights, 1.0), np.nan)

    def hopeless(self, values: Sequence[pa.ChunkedArray]) -> Mask | None:
        """A weight of zero or less is never drawn."""
        return doubles(values[0]) <= 0 if values else None
