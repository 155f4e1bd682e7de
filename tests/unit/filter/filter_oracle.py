"""The meaning of an experiment, slowly: rows as dicts, rules as closures, no SQL and no arrays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Row = Mapping[str, Any]
Verdict = bool | None
Whole = Callable[[Sequence[Row]], list[Verdict]]
"""A rule: verdicts on all rows of the pool, which are in uid order."""


def number(value: Any) -> float | None:
    """NULL and NaN are no values."""
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def row_rule(condition: Callable[[Row], Verdict]) -> Whole:
    return lambda rows: [condition(row) for row in rows]


def at_least(column: str, least: float) -> Whole:
    def condition(row: Row) -> Verdict:
        value = number(row.get(column))
        return None if value is None else value >= least

    return row_rule(condition)


def either(a: Whole, b: Whole) -> Whole:
    def verdicts(rows: Sequence[Row]) -> list[Verdict]:
        return [kleene_any([x, y]) for x, y in zip(a(rows), b(rows), strict=True)]

    return verdicts


def wider_than_high(row: Row) -> Verdict:
    width, height = row.get("width"), row.get("height")
    return None if width is None or not height else width / height > 1


def top(value: Callable[[Row], float | None], fraction: float, lowest: bool) -> Whole:
    def verdicts(rows: Sequence[Row]) -> list[Verdict]:
        count = math.floor(Fraction(repr(fraction)) * len(rows))
        have = [(v if lowest else -v, r["uid"]) for r in rows if (v := value(r)) is not None]
        best = {uid for _, uid in sorted(have)[:count]}
        return [None if value(r) is None else r["uid"] in best for r in rows]

    return verdicts


def dedup(columns: Sequence[str], highest: str | None) -> Whole:
    def verdicts(rows: Sequence[Row]) -> list[Verdict]:
        survivors: dict[tuple[Any, ...], tuple[float, str]] = {}
        keys = [tuple(number(r.get(c)) for c in columns) for r in rows]
        for key, row in zip(keys, rows, strict=True):
            best = number(row.get(highest)) if highest else None
            rank = (math.inf if best is None else -best, best is None, row["uid"])
            survivors[key] = min(survivors.get(key, rank), rank)
        return [None in k or survivors[k][-1] == r["uid"] for k, r in zip(keys, rows, strict=True)]

    return verdicts


def kleene_any(values: Sequence[Verdict]) -> Verdict:
    return True if True in values else None if None in values else False


def combined(keep: Any, row: Mapping[str, Verdict]) -> Verdict:
    if isinstance(keep, str):
        return row[keep]
    ((word, inner),) = keep.items()
    if word == "not":
        value = combined(inner, row)
        return None if value is None else not value
    values = [combined(part, row) for part in inner]
    if word == "any":
        return kleene_any(values)
    return False if False in values else None if None in values else True


def steps(keep: Any) -> list[Any]:
    if isinstance(keep, dict) and "all" in keep:
        return [step for part in keep["all"] for step in steps(part)]
    return [keep]


@dataclass
class Answer:
    kept: list[str]
    reasons: dict[str, int]
    why: dict[str, str | None]
    verdicts: dict[str, list[Verdict]]
    unique: dict[str, int]


def judge(rows: Sequence[Row], rules: Mapping[str, Whole], keep: Any) -> Answer:
    rows = sorted(rows, key=lambda r: r["uid"])
    verdicts = {name: rule(rows) for name, rule in rules.items()}
    why: dict[str, str | None] = {}
    unique: Counter[str] = Counter()
    for i, row in enumerate(rows):
        mine = {name: v[i] for name, v in verdicts.items()}
        why[row["uid"]] = None
        for step in steps(keep):
            value = combined(step, mine)
            if value is not True:
                name = step if isinstance(step, str) else "not_selected"
                why[row["uid"]] = "missing_score" if value is None else name
                break
        if why[row["uid"]] is not None:
            for name in rules:
                others = [combined(keep, {**mine, name: flipped}) for flipped in (True, False)]
                unique[name] += True in others
    reasons = Counter(reason for reason in why.values() if reason)
    kept = [uid for uid, reason in why.items() if reason is None]
    return Answer(kept, dict(sorted(reasons.items())), why, verdicts, dict(unique))
