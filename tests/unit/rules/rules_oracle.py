"""The meaning of rules, slowly: rows as dicts, one at a time, no SQL and no arrays of rows.

A rule gets the rows that reach it, in uid order, and the size of the pool. It gives a verdict for each,
and how often those that pass are there.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from curate.rules.algorithms.draws import exponentials, salt_of, uniforms, words_of
from tests.unit.filter.filter_oracle import Row, Verdict, kleene_any, number, steps

Said = list[tuple[Verdict, int]]
Meaning = Callable[[Sequence[Row], int], Said]


@dataclass(frozen=True)
class Rule:
    meaning: Meaning
    learns: bool


def local(condition: Callable[[Row], Verdict]) -> Rule:
    return Rule(lambda rows, pool: [(condition(row), 1) for row in rows], learns=False)


def learned(verdicts: Callable[[Sequence[Row], int], list[Verdict]]) -> Rule:
    return Rule(lambda rows, pool: [(v, 1) for v in verdicts(rows, pool)], learns=True)


def score(column: str, bounds: Mapping[str, float]) -> Rule:
    tests = {
        "min": lambda v, b: v >= b,
        "max": lambda v, b: v <= b,
        "above": lambda v, b: v > b,
        "below": lambda v, b: v < b,
    }

    def verdicts(rows: Sequence[Row], pool: int) -> list[Verdict]:
        present = sorted(v for r in rows if (v := number(r[column])) is not None)
        limits = [(tests[k], b) for k, b in bounds.items() if k in tests]
        if present and "min_quantile" in bounds:
            place = math.floor(Fraction(repr(bounds["min_quantile"])) * len(present))
            limits.append((tests["min"], present[place]))
        if present and "max_quantile" in bounds:
            place = math.ceil(Fraction(repr(bounds["max_quantile"])) * len(present)) - 1
            limits.append((tests["max"], present[place]))
        values = [number(r[column]) for r in rows]
        return [None if v is None else all(test(v, b) for test, b in limits) for v in values]

    return Rule(learned(verdicts).meaning, "min_quantile" in bounds or "max_quantile" in bounds)


def asked(fraction: float | None, count: int | None, rows: int) -> int:
    return math.floor(Fraction(repr(fraction)) * rows) if fraction is not None else count or 0


def top(
    column: str, fraction: float | None, count: int | None, lowest: bool, by: str | None, of: str
) -> Rule:
    def verdicts(rows: Sequence[Row], pool: int) -> list[Verdict]:
        best: set[str] = set()
        for group in {r[by] for r in rows} if by else {None}:
            mine = [r for r in rows if by is None or r[by] == group]
            size = asked(fraction, count, pool if of == "pool" else len(mine))
            have = [(v if lowest else -v, r["uid"]) for r in mine if (v := number(r[column])) is not None]
            best |= {uid for _, uid in sorted(have)[:size]}
        return [
            None if number(r[column]) is None or (by and r[by] is None) else r["uid"] in best for r in rows
        ]

    return learned(verdicts)


def preferred(row: Row, highest: str | None, lowest: str | None) -> tuple[Any, ...]:
    """Sorts the better row first."""
    if highest is None and lowest is None:
        return (0, row["uid"])
    value = number(row[highest or lowest or ""])
    if value is None:
        return (math.inf, row["uid"])
    # The worst of values is still better than none.
    return (min(-value if highest else value, sys.float_info.max), row["uid"])


def dedup(columns: Sequence[str], highest: str | None, lowest: str | None) -> Rule:
    def verdicts(rows: Sequence[Row], pool: int) -> list[Verdict]:
        keys = [tuple(number(r[c]) for c in columns) for r in rows]
        best: dict[Any, str] = {}
        for key, row in sorted(zip(keys, rows, strict=True), key=lambda p: preferred(p[1], highest, lowest)):
            best.setdefault(key, row["uid"])
        return [None in key or best[key] == row["uid"] for key, row in zip(keys, rows, strict=True)]

    return learned(verdicts)


def near(column: str, distance: int, highest: str | None, lowest: str | None) -> Rule:
    def verdicts(rows: Sequence[Row], pool: int) -> list[Verdict]:
        stay: list[Row] = []
        for row in sorted(rows, key=lambda r: preferred(r, highest, lowest)):
            if row[column] is None or all((row[column] ^ s[column]).bit_count() > distance for s in stay):
                stay += [row] if row[column] is not None else []
        kept = {r["uid"] for r in stay}
        return [r[column] is None or r["uid"] in kept for r in rows]

    return learned(verdicts)


def frequency(column: str, at_most: int | None, at_least: int | None) -> Rule:
    def verdicts(rows: Sequence[Row], pool: int) -> list[Verdict]:
        counts = Counter(r[column] for r in rows)
        return [
            None
            if r[column] is None
            else (at_most is None or counts[r[column]] <= at_most)
            and (at_least is None or counts[r[column]] >= at_least)
            for r in rows
        ]

    return learned(verdicts)


def draw(row: Row, salt: int, at: int = 0) -> float:
    return float(uniforms(words_of(pa.array([row["uid"]]), salt), at)[0])


def grouped(
    column: str, size: Callable[[list[int]], int], highest: str | None, lowest: str | None, salt: int
) -> Rule:
    """At most so many rows of each group, by preference or by draw; ``size`` sees the sizes of all groups."""

    def order(row: Row) -> tuple[Any, ...]:
        if highest is None and lowest is None:
            return (-draw(row, salt), row["uid"])
        return preferred(row, highest, lowest)

    def verdicts(rows: Sequence[Row], pool: int) -> list[Verdict]:
        groups: dict[Any, list[Row]] = {}
        for row in rows:
            if row[column] is not None:
                groups.setdefault(row[column], []).append(row)
        most = size([len(g) for g in groups.values()]) if groups else 0
        kept = {r["uid"] for g in groups.values() for r in sorted(g, key=order)[:most]}
        return [None if r[column] is None else r["uid"] in kept for r in rows]

    return learned(verdicts)


def sample(weight: str | None, fraction: float | None, count: int | None, salt: int) -> Rule:
    def verdicts(rows: Sequence[Row], pool: int) -> list[Verdict]:
        order = []
        for row in rows:
            value = 1.0 if weight is None else number(row[weight])
            if value is not None and 0 < value < math.inf:
                drawn = draw(row, salt)
                order.append((-drawn if weight is None else -math.log(drawn) / value, row["uid"]))
        kept = {uid for _, uid in sorted(order)[: asked(fraction, count, len(rows))]}
        return [
            None if weight and ((v := number(r[weight])) is None or v == math.inf) else r["uid"] in kept
            for r in rows
        ]

    return learned(verdicts)


def ring(row: Row, salt: int, at: int) -> float:
    return float(exponentials(words_of(pa.array([row["uid"]]), salt), at)[0])


def repeated(column: str, counts: Callable[[list[Row], int], Counter[str]], draws: int | None) -> Rule:
    def meaning(rows: Sequence[Row], pool: int) -> Said:
        finite = [r for r in rows if (v := number(r[column])) is not None and abs(v) < math.inf]
        found = counts(finite, len(rows) if draws is None else draws)
        known = {r["uid"] for r in finite}
        return [(r["uid"] in found if r["uid"] in known else None, found[r["uid"]]) for r in rows]

    return Rule(meaning, learns=True)


def soft_cap(column: str, draws: int | None, alpha: float, batch: int, salt: int) -> Rule:
    """The clocks of ``curate.rules.algorithms.caps``, one event after the other."""

    def counts(rows: list[Row], left: int) -> Counter[str]:
        found: Counter[str] = Counter()
        clocks = [(ring(r, salt, 0) / math.exp(r[column]), i) for i, r in enumerate(rows)]
        heapq.heapify(clocks)
        while left and rows:
            drawn = [heapq.heappop(clocks) for _ in range(min(batch, len(rows), left))]
            now = drawn[-1][0]
            for _, i in drawn:
                row = rows[i]
                found[row["uid"]] += 1
                rate = math.exp(row[column] - alpha * found[row["uid"]])
                heapq.heappush(clocks, (now + ring(row, salt, found[row["uid"]]) / rate, i))
            left -= len(drawn)
        return found

    return repeated(column, counts, draws)


def hard_cap(column: str, draws: int | None, at_most: int, salt: int) -> Rule:
    def counts(rows: list[Row], left: int) -> Counter[str]:
        rings = []
        for i, row in enumerate(rows):
            time = 0.0
            for at in range(at_most):
                time += ring(row, salt, at) / math.exp(row[column])
                rings.append((time, i))
        return Counter(rows[i]["uid"] for _, i in sorted(rings)[:left])

    return repeated(column, counts, draws)


Pool = Sequence[Row]
NOT_ASKED: tuple[Verdict, int] = (None, 1)


class Experiment:
    """Verdicts of every place of a rule; each rule stands in one place."""

    def __init__(self, rules: Mapping[str, Rule], keep: Any, rows: Pool) -> None:
        self.rules, self.rows = rules, sorted(rows, key=lambda r: r["uid"])
        self.verdicts: dict[str, Said] = {}
        self.reached: dict[str, int] = {}
        said = self.judged(keep, [True] * len(self.rows))
        for name in rules.keys() - self.verdicts.keys():
            self.judged(name, [True] * len(self.rows))
        self.kept = {r["uid"]: n for r, (v, n) in zip(self.rows, said, strict=True) if v is True}
        self.why = [self.reason(keep, i) for i in range(len(self.rows))]
        self.reasons = dict(sorted(Counter(w for w in self.why if w).items()))

    def judged(self, keep: Any, left: list[bool]) -> Said:
        if isinstance(keep, str):
            rule = self.rules[keep]
            asked = left if rule.learns else [True] * len(left)
            mine = iter(rule.meaning([r for r, a in zip(self.rows, asked, strict=True) if a], len(self.rows)))
            self.verdicts[keep] = [next(mine) if a else NOT_ASKED for a in asked]
            self.reached[keep] = sum(asked)
            return self.verdicts[keep]
        ((word, inner),) = keep.items()
        if word == "not":
            return [(None if v is None else not v, 1) for v, _ in self.judged(inner, left)]
        parts = []
        for part in inner:
            parts.append(self.judged(part, left))
            if word == "then":
                left = [a and v is True for a, (v, _) in zip(left, parts[-1], strict=True)]
        return [self.combined(word, row) for row in zip(*parts, strict=True)]

    def combined(self, word: str, said: Sequence[tuple[Verdict, int]]) -> tuple[Verdict, int]:
        verdicts = [v for v, _ in said]
        if word == "any":
            return kleene_any(verdicts), max([n for v, n in said if v is True], default=1)
        copies = math.prod(n for _, n in said)
        if word == "then":
            return next((v for v in verdicts if v is not True), True), copies
        return False if False in verdicts else None if None in verdicts else True, copies

    def again(self, keep: Any, row: int, other: Mapping[str, Verdict] = MappingProxyType({})) -> Verdict:
        """The verdict of a part on one row, from what its rules said, or if one had said something else."""
        if isinstance(keep, str):
            return other[keep] if keep in other else self.verdicts[keep][row][0]
        ((word, inner),) = keep.items()
        if word == "not":
            value = self.again(inner, row, other)
            return None if value is None else not value
        return self.combined(word, [(self.again(part, row, other), 1) for part in inner])[0]

    def uniquely_dropped(self, keep: Any, name: str) -> int:
        """Dropped rows that would stay if this rule alone had said something else."""
        dropped = [i for i, why in enumerate(self.why) if why]
        return sum(any(self.again(keep, i, {name: v}) is True for v in (True, False)) for i in dropped)

    def reason(self, keep: Any, row: int) -> str | None:
        for step in sequence(keep):
            value = self.again(step, row)
            if value is not True:
                return "missing_score" if value is None else step if isinstance(step, str) else "not_selected"
        return None


def sequence(keep: Any) -> list[Any]:
    if isinstance(keep, dict) and "then" in keep:
        return [step for part in keep["then"] for step in sequence(part)]
    return [s for step in steps(keep) for s in (sequence(step) if step != keep else [step])]


def salted(name: str, seed: int) -> int:
    return salt_of(name, seed)
