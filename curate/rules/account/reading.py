"""``funnel.json`` read again: what a filter says about its rules and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curate.rules.cuts import Cut


@dataclass(frozen=True)
class RuleAccount:
    """One rule of an experiment, as ``funnel.json`` tells of it; a count that it lacks is None.

    Attributes:
        name: the drop reason.
        kind: ``where``, ``top``, ``dedup``, ``experiment``, or what else the filter names.
        expression: the rule as the filter writes it: SQL for ``where``, a phrase for the others.
        words: what the rule keeps, as a phrase; the SQL of a ``where`` is left to be shown as code.
        passed, failed, missing: samples by verdict; missing is a NULL or NaN score.
        alone: dropped if this were the only rule.
        in_sequence: dropped by this rule of those that the rules before it left.
        unique: kept if it were not for this rule.
        threshold: the value at which it cuts, of a ``top`` and of a bound on one side; None for other rules.
        quantile: of a ``top`` the share of samples with a value that do not pass, of a bound the share
            that lies below it.
        cuts: where it compares a column with a number; a selection that was made before these were recorded
            has none.
    """

    name: str
    kind: str
    expression: str
    words: str
    passed: int | None
    failed: int | None
    missing: int | None
    alone: int | None
    in_sequence: int | None
    unique: int | None
    threshold: float | None
    quantile: float | None = None
    cuts: tuple[Cut, ...] = ()

    @property
    def sql(self) -> str:
        """The condition of a ``where``; empty for other rules."""
        return self.expression if self.kind == "where" else ""


def rules_of(funnel: Mapping[str, Any]) -> list[RuleAccount]:
    """The rules of a funnel, in their order."""
    found = []
    for entry in funnel.get("rules") or ():
        kind, expression = str(entry.get("kind", "")), str(entry.get("expression", ""))
        found.append(
            RuleAccount(
                name=str(entry.get("rule", "")),
                kind=kind,
                expression=expression,
                words="samples that satisfy" if kind == "where" else str(entry.get("words", expression)),
                passed=_count(entry, "passed"),
                failed=_count(entry, "failed"),
                missing=_count(entry, "missing"),
                alone=_count(entry, "dropped_alone"),
                in_sequence=_count(entry, "dropped_in_sequence"),
                unique=_count(entry, "uniquely_dropped"),
                threshold=_number(entry, "threshold"),
                quantile=_number(entry, "quantile"),
                cuts=tuple(Cut.from_facts(facts) for facts in entry.get("cuts") or ()),
            )
        )
    return found


@dataclass(frozen=True)
class Overlap:
    """What any two rules drop both, each as if it were the only one.

    Attributes:
        both: ``both[i][j]``: samples that the rules i and j drop; ``both[i][i]``: that i drops.
    """

    rules: tuple[str, ...]
    both: tuple[tuple[int, ...], ...]


def overlap_of(funnel: Mapping[str, Any]) -> Overlap | None:
    """None of a funnel that does not tell."""
    facts = funnel.get("overlap")
    if not isinstance(facts, Mapping):
        return None
    both = tuple(tuple(int(n) for n in row) for row in facts.get("both_drop") or ())
    return Overlap(tuple(str(name) for name in facts.get("rules") or ()), both)


@dataclass(frozen=True)
class Part:
    """The samples that have one value of a column, or one of some.

    Attributes:
        name: the value.
        rows: how many there are; ``kept + sum(reasons.values())``.
        total: what is kept with its repeats.
        reasons: reason → samples dropped for it.
    """

    name: str
    rows: int
    kept: int
    total: int
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class Parts:
    """The samples by the values of one column.

    Attributes:
        values: the most frequent ones, most frequent first.
        other: all other values together.
        others: how many different ones these are; None: more than were counted.
        unknown: samples without a value.
    """

    column: str
    values: tuple[Part, ...]
    other: Part
    others: int | None
    unknown: Part


def parts_of(funnel: Mapping[str, Any]) -> list[Parts]:
    """The columns that a funnel is broken down by, in their order."""
    return [
        Parts(
            column=str(column),
            values=tuple(_part(str(v["value"]), v) for v in facts["values"]),
            other=_part("other", facts["other"]),
            others=facts["other"]["values"],
            unknown=_part("unknown", facts["unknown"]),
        )
        for column, facts in (funnel.get("by") or {}).items()
    ]


def _part(name: str, facts: Mapping[str, Any]) -> Part:
    rows, kept, total = (int(facts[key]) for key in ("rows_in", "kept", "total"))
    return Part(name, rows, kept, total, {str(k): int(n) for k, n in facts["reasons"].items()})


def _count(entry: Mapping[str, Any], key: str) -> int | None:
    value = entry.get(key)
    return int(value) if isinstance(value, (int, float)) else None


def _number(entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    return float(value) if isinstance(value, (int, float)) or value in ("inf", "-inf") else None


@dataclass(frozen=True)
class Account:
    """The account of an experiment, as ``funnel.json`` has it.

    Attributes:
        facts: all of it, as plain JSON values; empty when there is none.
        rules: in their order.
        overlap: what any two rules drop both; None of a funnel that does not tell.
        parts: by the values of columns.
    """

    facts: Mapping[str, Any]
    rules: tuple[RuleAccount, ...]
    overlap: Overlap | None
    parts: tuple[Parts, ...]

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Account:
        """Read it.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        return cls(facts, tuple(rules_of(facts)), overlap_of(facts), tuple(parts_of(facts)))

    @property
    def description(self) -> str:
        """One line about the experiment; may be empty."""
        return str(self.facts.get("description") or "")

    @property
    def keep(self) -> str:
        """How the rules combine, on a line."""
        return str(self.facts.get("keep") or "")
