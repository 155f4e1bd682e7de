"""The rule ``score``: bounds of a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import pyarrow as pa

from curate.config.rules.score import ScoreRule
from curate.rules.algorithms.spool import Floats
from curate.rules.contract import BoundRule, Compiling, Learned, LearnedForm, Rows, RuleFiles, Verdict
from curate.rules.cuts import Cut, Operator, plain
from curate.rules.learned import is_number
from curate.rules.logic import Truth
from curate.rules.ranking import Places, Ranking, RowCounts
from curate.samples.pool import UidAt, doubles

_GIVEN: dict[str, Operator] = {"min": ">=", "above": ">", "max": "<=", "below": "<"}
_QUANTILES: dict[str, tuple[str, Operator]] = {
    "min_quantile": ("least", ">="),
    "max_quantile": ("most", "<="),
}
"""Key → under which key its value is learned, and how it is compared."""


@dataclass(frozen=True)
class Score(Ranking):
    """Bounds of a number.

    A bound is rounded to the column's own precision first, as SQL does: 0.35 as a 32-bit float is
    less than 0.35.
    """

    settings: ScoreRule

    @classmethod
    def compile(cls, settings: ScoreRule, at: Compiling) -> Score:
        """See ``CompiledRule.compile``."""
        value = at.number(settings.score)
        given = {key: bound for key in _GIVEN if (bound := getattr(settings, key)) is not None}
        words = [f"{settings.score} {_GIVEN[key]} {bound:g}" for key, bound in given.items()]
        for key, (_, op) in _QUANTILES.items():
            if (quantile := getattr(settings, key)) is not None:
                words.append(f"{settings.score} {op} its quantile {quantile:g}")
        return cls(at.name, at.place, settings, " and ".join(words), (value,), 1)

    @classmethod
    def learned_form(cls, settings: ScoreRule) -> LearnedForm:
        """The values at the quantiles."""
        asked = (key for name, (key, _) in _QUANTILES.items() if getattr(settings, name) is not None)
        return LearnedForm(dict.fromkeys(asked, is_number))

    @property
    def learns(self) -> bool:
        """Only quantiles do."""
        return self.settings.transferable

    @property
    def ranking(self) -> tuple[str, ...]:
        """The highest values of the expression."""
        return "high", self.expressions[0].sql

    def numbers(self, values: Sequence[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """The expression."""
        return doubles(values[0])

    def places(self, counts: RowCounts) -> list[int]:
        """Where the quantiles are."""
        return [place for place in self._quantiles(counts.present) if place is not None]

    def facts(self, counts: RowCounts, places: Places, uid_at: UidAt) -> dict[str, Any]:
        """The values at the quantiles; None when no row has a value."""
        found: dict[str, Any] = {"rows_with_value": counts.present}
        for key, place in zip(("least", "most"), self._quantiles(counts.present), strict=True):
            if place is not None:
                row = places[place]
                found[key] = None if row is None else plain(row.value)
        return found

    def _quantiles(self, present: int) -> tuple[int | None, int | None]:
        """Places of the least and the most value that pass, counted from the best, from 1."""
        low, high = self.settings.min_quantile, self.settings.max_quantile
        return (
            None if low is None else present - floor(Fraction(repr(low)) * present),
            None if high is None else present - ceil(Fraction(repr(high)) * present) + 1,
        )

    def cuts(self, learned: Learned) -> tuple[Cut, ...]:
        """All bounds: those that are given as they are written, then those that are learned."""
        subject = self.expressions[0].subject
        bounds = [(op, getattr(self.settings, key)) for key, op in _GIVEN.items()]
        found = [Cut(subject, op, bound) for op, bound in bounds if bound is not None]
        for name, (key, op) in _QUANTILES.items():
            if getattr(self.settings, name) is not None:
                value = learned.get(key)
                found.append(Cut(subject, op, None if value is None else float(value)))
        return tuple(found)

    def bound(self, learned: Learned) -> Cut | None:
        """Of a rule with bounds on one side, the one that decides."""
        cuts = self.cuts(learned)
        known = [cut for cut in cuts if cut.value is not None]
        if len(known) < len(cuts) or len({cut.above for cut in cuts}) != 1:
            return None
        strictest = max if cuts[0].above else min
        return strictest(known, key=lambda cut: cut.value or 0.0)

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """All bounds hold. Where no row had a value to learn a quantile of, none passes."""
        cuts = self.cuts(learned)
        # What was learned is a value of the column, which no rounding changes.
        bounds = [(cut.op, None if cut.value is None else self._rounded(cut.value)) for cut in cuts]

        def judge(rows: Rows) -> Verdict:
            values = self.ranked(rows)
            missing = np.isnan(values)
            passed = ~missing
            for op, bound in bounds:
                passed &= _HOLDS[op](values, bound) if bound is not None else False
            return Verdict(Truth(passed, ~passed & ~missing))

        return BoundRule(judge)

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


_HOLDS = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}
