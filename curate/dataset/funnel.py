"""What a filter says about its rules, in words and numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TOP = re.compile(r"(highest|lowest) ([0-9.e+-]+) by (.*)", re.DOTALL)


@dataclass(frozen=True)
class RuleAccount:
    """One rule of an experiment, as ``funnel.json`` tells of it; a count that it lacks is None.

    Attributes:
        name: the drop reason.
        kind: ``where``, ``top``, ``dedup``, ``experiment``, or what else the filter names.
        expression: the rule as the filter writes it: SQL for ``where``, a phrase for the others.
        passed, failed, missing: samples by verdict; missing is a NULL or NaN score.
        alone: dropped if this were the only rule.
        in_sequence: dropped by this rule of those that the rules before it left.
        unique: kept if it were not for this rule.
        threshold: the value at which a ``top`` cuts; None for other rules.
    """

    name: str
    kind: str
    expression: str
    passed: int | None
    failed: int | None
    missing: int | None
    alone: int | None
    in_sequence: int | None
    unique: int | None
    threshold: float | None

    @property
    def words(self) -> str:
        """What the rule keeps, as a phrase; the SQL of a ``where`` is left to be shown as code."""
        if self.kind == "where":
            return "samples that satisfy"
        if self.kind == "top" and (match := _TOP.fullmatch(self.expression)):
            end, fraction, column = match.groups()
            return f"the {percent(float(fraction))} of all samples with the {end} {column}"
        return self.expression

    @property
    def sql(self) -> str:
        """The condition of a ``where``; empty for other rules."""
        return self.expression if self.kind == "where" else ""


def rules_of(funnel: Mapping[str, Any]) -> list[RuleAccount]:
    """The rules of a funnel, in their order."""
    found = []
    for entry in funnel.get("rules") or ():
        threshold = entry.get("threshold")
        found.append(
            RuleAccount(
                name=str(entry.get("rule", "")),
                kind=str(entry.get("kind", "")),
                expression=str(entry.get("expression", "")),
                passed=_count(entry, "passed"),
                failed=_count(entry, "failed"),
                missing=_count(entry, "missing"),
                alone=_count(entry, "dropped_alone"),
                in_sequence=_count(entry, "dropped_in_sequence"),
                unique=_count(entry, "uniquely_dropped"),
                threshold=float(threshold) if isinstance(threshold, (int, float)) else None,
            )
        )
    return found


def percent(share: float) -> str:
    """``30 %``, ``2.5 %``, ``0.013 %``: as many digits as the number needs, at most three below 1 %."""
    value = share * 100
    text = f"{value:.1f}" if value >= 1 else f"{value:.3f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def _count(entry: Mapping[str, Any], key: str) -> int | None:
    value = entry.get(key)
    return int(value) if isinstance(value, (int, float)) else None
