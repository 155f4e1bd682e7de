"""The account of an experiment: how many rows every rule saw, passed, and cost. Exact, and it adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curate.config.filters import Keep, rule_names
from curate.reasons import FilterReason
from curate.rules.kinds import Compiled, Learned
from curate.rules.logic import Mask, Truth, combine, conjuncts, decided_by, reached, written


@dataclass
class Funnel:
    """Counts over the shards of a pool.

    Attributes:
        scopes: what a row has to pass before it reaches a rule; for others, all rows do.
        sequence: what has to hold, one after the other.
    """

    rules: tuple[Compiled, ...]
    keep: Keep
    scopes: Mapping[str, tuple[Keep, ...]] = field(default_factory=dict)
    rows: int = 0
    kept: int = 0
    total: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    _rules: Counter[tuple[str, str]] = field(default_factory=Counter)
    _steps: Counter[tuple[int, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.sequence = conjuncts(self.keep)
        self._used = set(rule_names(self.keep))

    def add(self, verdicts: Mapping[str, Truth], rows: int) -> Mask:
        """Count one shard.

        Returns:
            Which rows are kept, bool, shape (rows,).
        """
        kept = combine(self.keep, verdicts).passed
        self.rows += rows
        self.kept += int(kept.sum())
        for name, truth in verdicts.items():
            self._rules[name, "passed"] += int(truth.passed.sum())
            self._rules[name, "failed"] += int(truth.failed.sum())
            scope = self.scopes.get(name)
            self._rules[name, "rows_in"] += (
                rows if scope is None else int(reached(scope, verdicts, rows).sum())
            )
            if name in self._used:
                decided = decided_by(name, self.keep, verdicts, kept)
                self._rules[name, "uniquely_dropped"] += int(decided.sum())
        for i, fallen, missing in _fallen(self.sequence, verdicts, rows):
            self._steps[i, "dropped"] += fallen
            self._steps[i, "missing"] += missing
            if fallen - missing:
                self.reasons[_reason(self.sequence[i], missing=False)] += fallen - missing
            if missing:
                self.reasons[_reason(self.sequence[i], missing=True)] += missing
        return kept

    def facts(self, learned: Mapping[str, Learned]) -> dict[str, Any]:
        """Plain JSON values, see ``docs/filters.md``."""
        steps, left = [], self.rows
        in_sequence: Counter[str] = Counter()
        for i, part in enumerate(self.sequence):
            dropped = self._steps[i, "dropped"]
            name = written(part)
            steps.append(
                {
                    "step": name,
                    "rows_in": left,
                    "dropped": dropped,
                    "of_these_missing": self._steps[i, "missing"],
                    "left": left - dropped,
                }
            )
            left -= dropped
            in_sequence[name] += dropped
        rules = [self._rule(rule, learned[rule.name], in_sequence) for rule in self.rules]
        return {
            "rows_in": self.rows,
            "kept": self.kept,
            "total": self.total,
            "keep": written(self.keep),
            "reasons": dict(sorted(self.reasons.items())),
            "sequence": steps,
            "rules": rules,
        }

    def _rule(self, rule: Compiled, learned: Learned, in_sequence: Counter[str]) -> dict[str, Any]:
        counts = ("rows_in", "passed", "failed")
        rows, passed, failed = (self._rules[rule.name, count] for count in counts)
        return {
            "rule": rule.name,
            "kind": rule.kind,
            "expression": rule.text,
            "in_keep": rule.name in self._used,
            "rows_in": rows,
            "passed": passed,
            "failed": failed,
            "missing": rows - passed - failed,
            "dropped_alone": rows - passed,
            "dropped_in_sequence": in_sequence[rule.name],
            "uniquely_dropped": self._rules[rule.name, "uniquely_dropped"],
            **rule.account(learned),
        }


def _fallen(sequence: list[Keep], verdicts: Mapping[str, Truth], rows: int) -> list[tuple[int, int, int]]:
    """Step, rows that fell at it, and how many of these because it had no verdict."""
    left = np.ones(rows, bool)
    found = []
    for i, part in enumerate(sequence):
        truth = combine(part, verdicts)
        fallen = left & ~truth.passed
        found.append((i, int(fallen.sum()), int((fallen & truth.missing).sum())))
        left &= truth.passed
    return found


def _reason(part: Keep, missing: bool) -> str:
    if missing:
        return FilterReason.MISSING_SCORE.value
    return part if isinstance(part, str) else FilterReason.NOT_SELECTED.value


def reason_of(keep: Keep, verdicts: Mapping[str, Truth], row: int) -> str | None:
    """Why a row was dropped; None when it was kept.

    In a sequence it is the first rule that the row did not pass, or ``missing_score`` when that rule
    had no value for it. A row that fell to an ``any`` or ``not`` is ``not_selected``, or
    ``missing_score`` when a missing value left that undecided.
    """
    for part in conjuncts(keep):
        truth = combine(part, verdicts)
        if not truth.passed[row]:
            return _reason(part, missing=not truth.failed[row])
    return None
