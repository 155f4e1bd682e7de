"""Rules that are a threshold of a number: the value at which they cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from curate.rules.kinds import Compiled, Learned
from curate.rules.scores import Score
from curate.rules.simple import Where

_STRING = re.compile(r"'(?:[^']|'')*'")
_NUMBER = r"(-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_SIGN = r"\s*(>=|<=|>|<)\s*"


@dataclass(frozen=True)
class Threshold:
    """A value at which a rule cuts a column; ``above`` when what lies above it passes."""

    rule: str
    column: str
    value: float
    above: bool


class Bound(NamedTuple):
    """The value at which a rule cuts, and whether what lies above it passes."""

    value: float
    above: bool


def bound_of(rule: Compiled, learned: Learned) -> Bound | None:
    """Where a rule with bounds on one side cuts.

    None for other rules, for a ``where`` that is more than one comparison of a bare column with a
    number, and for a quantile of no values.
    """
    if isinstance(rule, Score):
        return _bound_of_score(rule, learned)
    if isinstance(rule, Where):
        condition = rule.expressions[0]
        return bound_in(condition.text, condition.columns)
    return None


def _bound_of_score(rule: Score, learned: Learned) -> Bound | None:
    if any(k in learned and learned[k] is None for k in ("least", "most")):
        return None
    asked = rule.rule
    low = _numbers(asked.min, asked.above, learned.get("least"))
    high = _numbers(asked.max, asked.below, learned.get("most"))
    if low and high:
        return None
    if low:
        return Bound(max(low), above=True)
    return Bound(min(high), above=False) if high else None


def _numbers(*bounds: float | str | None) -> list[float]:
    return [float(b) for b in bounds if b is not None]


def bound_in(sql: str, columns: Sequence[str]) -> Bound | None:
    """The bound of a condition that is ``column >= 0.3`` or ``0.3 <= column`` and nothing else."""
    for column in columns:
        name = _name(column)
        if match := re.fullmatch(rf"\s*{name}{_SIGN}{_NUMBER}\s*", sql, re.IGNORECASE):
            return Bound(float(match[2]), match[1][0] == ">")
        if match := re.fullmatch(rf"\s*{_NUMBER}{_SIGN}{name}\s*", sql, re.IGNORECASE):
            return Bound(float(match[1]), match[2][0] == "<")
    return None


def thresholds_in(rule: str, sql: str, columns: Sequence[str]) -> list[Threshold]:
    """Comparisons of a bare column with a number in a SQL condition, for showing; nothing is parsed.

    Finds ``column >= 0.3``, ``0.3 <= column`` and ``column BETWEEN 3 AND 5``; a comparison within
    ``NOT`` is shown all the same, on the side that the operator says.
    """
    text = _STRING.sub("''", sql)
    found = []
    for column in columns:
        name = _name(column)
        for match in re.finditer(rf"{name}{_SIGN}{_NUMBER}(?![\w.])", text, re.IGNORECASE):
            found.append(Threshold(rule, column, float(match[2]), match[1][0] == ">"))
        for match in re.finditer(rf"(?<![\w.]){_NUMBER}{_SIGN}{name}", text, re.IGNORECASE):
            found.append(Threshold(rule, column, float(match[1]), match[2][0] == "<"))
        between = rf"{name}\s+BETWEEN\s+{_NUMBER}\s+AND\s+{_NUMBER}(?![\w.])"
        for match in re.finditer(between, text, re.IGNORECASE):
            found.append(Threshold(rule, column, float(match[1]), True))
            found.append(Threshold(rule, column, float(match[2]), False))
    return list(dict.fromkeys(found))


def _name(column: str) -> str:
    return rf'(?<![\w."])"?{re.escape(column)}"?(?![\w("])'
