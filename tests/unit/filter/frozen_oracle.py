"""What a rule that has seen the rows of one pool says about the rows of another, slowly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from curate.config.filters import Rule
from curate.config.rules.cap import CapRule
from curate.config.rules.equal import EqualRule
from curate.config.rules.frequency import FrequencyRule
from curate.config.rules.sample import SampleRule
from curate.config.rules.score import ScoreRule
from curate.config.rules.top import TopRule
from tests.unit.filter.filter_oracle import Row
from tests.unit.rules import rules_oracle as oracle

NEVER = (math.inf, "~")
"""Ranks a row whose weight is never drawn: after all others."""


def fixed(name: str, rule: Rule, there: Sequence[Row], pool: int) -> Callable[[Row], bool | None]:
    """What a rule that has seen the rows of one pool says about a row of any."""
    if isinstance(rule, ScoreRule):
        return _fixed_bounds(rule, there)
    if isinstance(rule, FrequencyRule):
        return _fixed_counts(rule, there)
    group: str | None = None
    if isinstance(rule, TopRule):
        group = rule.by

        def rank(row: Row) -> Any:
            value = oracle.number(row[rule.top])
            return None if value is None else (value if rule.lowest else -value, row["uid"])

        def most(rows: Sequence[Row]) -> int:
            return oracle.asked(rule.fraction, rule.count, pool if rule.of == "pool" else len(rows))

    elif isinstance(rule, SampleRule):
        salt = oracle.salted(name, rule.seed)

        def rank(row: Row) -> Any:
            if rule.sample == "uniform":
                return (-oracle.draw(row, salt), row["uid"])
            value = oracle.number(row[rule.sample])
            if value is None or value == math.inf:
                return None
            return (-math.log(oracle.draw(row, salt)) / value, row["uid"]) if value > 0 else NEVER

        def most(rows: Sequence[Row]) -> int:
            return oracle.asked(rule.fraction, rule.count, len(rows))

    else:
        assert isinstance(rule, CapRule | EqualRule)
        group = rule.cap if isinstance(rule, CapRule) else rule.equal
        seed = oracle.salted(name, rule.seed)
        smallest = min(Counter(r[group] for r in there if r[group] is not None).values(), default=0)

        def rank(row: Row) -> Any:
            if rule.highest is None and rule.lowest is None:
                return (-oracle.draw(row, seed), row["uid"])
            return oracle.preferred(row, rule.highest, rule.lowest)

        def most(rows: Sequence[Row]) -> int:
            return rule.at_most if isinstance(rule, CapRule) else smallest

    return _fixed_cuts(there, rank, most, group, whole=isinstance(rule, CapRule))


def _fixed_cuts(
    there: Sequence[Row],
    rank: Callable[[Row], Any],
    most: Callable[[Sequence[Row]], int],
    group: str | None,
    whole: bool,
) -> Callable[[Row], bool | None]:
    """Every group has a last row that passes; ``whole``: one that is not cut passes as it is."""
    groups: dict[Any, list[Row]] = {}
    for row in there:
        groups.setdefault(row[group] if group else "", []).append(row)
    last: dict[Any, Any] = {}
    for key, rows in groups.items():
        ranks = sorted(k for r in rows if (k := rank(r)) is not None and k != NEVER)
        best = ranks[: most(rows)]
        if best and not (whole and len(ranks) <= most(rows)):
            last[key] = best[-1]

    def condition(row: Row) -> bool | None:
        key = row[group] if group else ""
        mine = rank(row)
        if key is None or mine is None:
            return None
        return mine <= last[key] if key in last else whole

    return condition


def _fixed_bounds(rule: ScoreRule, there: Sequence[Row]) -> Callable[[Row], bool | None]:
    present = sorted(v for r in there if (v := oracle.number(r[rule.score])) is not None)
    learned: list[Callable[[float], bool]] = []
    if rule.min_quantile is not None:
        least = present[oracle.asked(rule.min_quantile, None, len(present))] if present else math.nan
        learned.append(lambda v: v >= least)
    if rule.max_quantile is not None:
        top = oracle.asked(round(1 - rule.max_quantile, 9), None, len(present))
        most = present[len(present) - 1 - top] if present else math.nan
        learned.append(lambda v: v <= most)
    if rule.min is not None:
        learned.append(lambda v, b=rule.min: v >= b)  # type: ignore[misc]
    if rule.max is not None:
        learned.append(lambda v, b=rule.max: v <= b)  # type: ignore[misc]
    if rule.above is not None:
        learned.append(lambda v, b=rule.above: v > b)  # type: ignore[misc]
    if rule.below is not None:
        learned.append(lambda v, b=rule.below: v < b)  # type: ignore[misc]

    def condition(row: Row) -> bool | None:
        value = oracle.number(row[rule.score])
        return None if value is None else all(test(value) for test in learned)

    return condition


def _fixed_counts(rule: FrequencyRule, there: Sequence[Row]) -> Callable[[Row], bool | None]:
    counts = Counter(r[rule.frequency] for r in there)

    def condition(row: Row) -> bool | None:
        value = row[rule.frequency]
        if value is None:
            return None
        if rule.at_most is not None and counts[value] > rule.at_most:
            return False
        return rule.at_least is None or counts[value] >= rule.at_least

    return condition
