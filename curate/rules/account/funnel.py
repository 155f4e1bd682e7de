"""The account of an experiment: how many rows every rule saw, passed, and cost. Exact, and it adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.config.filters import Keep, rule_names
from curate.reasons import FilterReason
from curate.rules.account.breakdown import Breakdown, Fates
from curate.rules.contract import CompiledRule, Learned
from curate.rules.cuts import plain
from curate.rules.logic import Copies, Mask, Truth, combine, conjuncts, decided_by, in_scope, written

Bits = npt.NDArray[np.uint64]
"""A bit for every row: shape (masks, ceil(rows / 64))."""


@dataclass
class Funnel:
    """Counts over the shards of a pool.

    Attributes:
        scopes: what a row has to pass to be in the scope of a rule; of other rules, all rows are.
        by: columns that it is broken down by.
        unseen: reason → rows that no rule saw because of their uid; they are among ``rows``.
        unfit: reason → rows that every rule kept, and that are not in the selection because of their uid.
        sequence: what has to hold, one after the other.
    """

    rules: tuple[CompiledRule, ...]
    keep: Keep
    scopes: Mapping[str, tuple[Keep, ...]] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    rows: int = 0
    kept: int = 0
    total: int = 0
    unseen: Counter[str] = field(default_factory=Counter)
    unfit: Counter[str] = field(default_factory=Counter)
    _rules: Counter[tuple[str, str]] = field(default_factory=Counter)
    _steps: Counter[tuple[int, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.sequence = conjuncts(self.keep)
        self._used = set(rule_names(self.keep))
        self._both = np.zeros((len(self.rules), len(self.rules)), np.int64)
        self._by = {column: Breakdown(1 + 2 * len(self.sequence)) for column in self.by}

    def add(
        self, verdicts: Mapping[str, Truth], copies: Copies | None, samples: pa.Table | None = None
    ) -> Mask:
        """Count some rows.

        Args:
            verdicts: of every rule.
            copies: how often each row is there if it is kept, int64, shape (n,); None: each once.
            samples: has the columns that the account is broken down by.

        Returns:
            Which rows are kept, bool, shape (n,).
        """
        rows = len(next(iter(verdicts.values())).passed)
        bits = _not_passed([verdicts[rule.name].passed for rule in self.rules], rows)
        kept, fates = self._add_sequence(verdicts, rows)
        self._add_rules(verdicts, rows)
        self._add_overlap(verdicts, bits)
        self._add_unique(verdicts, bits, kept)
        here = _count(kept)
        total = here if copies is None else int(copies @ kept)
        self.rows += rows
        self.kept += here
        self.total += total
        times = None if copies is None else np.where(kept, copies, 0)
        for column, breakdown in self._by.items():
            assert samples is not None
            breakdown.add(samples[column], fates, times)
        return kept

    def _add_rules(self, verdicts: Mapping[str, Truth], rows: int) -> None:
        """What every rule says, whatever the others say."""
        for name, truth in verdicts.items():
            scope = self.scopes.get(name)
            here = rows if scope is None else _count(in_scope(scope, verdicts, rows))
            self._rules[name, "rows_in"] += here
            self._rules[name, "passed"] += _count(truth.passed)
            self._rules[name, "failed"] += _count(truth.failed)

    def _add_overlap(self, verdicts: Mapping[str, Truth], bits: Bits) -> None:
        """What any two rules drop both, of the rows in the scope of both."""
        dropped = bits.copy() if self.scopes else bits
        for i, rule in enumerate(self.rules):
            if rule.name in self.scopes:
                rows = len(verdicts[rule.name].passed)
                dropped[i] &= ~_not_passed([in_scope(self.scopes[rule.name], verdicts, rows)], rows)[0]
        for i, mine in enumerate(dropped):
            both = np.bitwise_count(mine & dropped[i:]).sum(axis=1, dtype=np.int64)
            self._both[i, i:] += both
            self._both[i + 1 :, i] += both[1:]

    def _add_unique(self, verdicts: Mapping[str, Truth], bits: Bits, kept: Mask) -> None:
        """What would be kept if it were not for one rule."""
        if not all(isinstance(part, str) for part in self.sequence):
            for name in self._used:
                decided = decided_by(name, self.keep, verdicts, kept)
                self._rules[name, "uniquely_dropped"] += _count(decided)
            return
        # Without `any` and `not` these are the rows that it does not pass, and all others do.
        mine = bits[[rule.name in self._used for rule in self.rules]]
        some, several = np.zeros_like(mine[0]), np.zeros_like(mine[0])
        for row in mine:
            several |= some & row
            some |= row
        names = [rule.name for rule in self.rules if rule.name in self._used]
        for name, n in zip(names, np.bitwise_count(mine & ~several).sum(axis=1).tolist(), strict=True):
            self._rules[name, "uniquely_dropped"] += n

    def _add_sequence(self, verdicts: Mapping[str, Truth], rows: int) -> tuple[Mask, Fates]:
        """Which rows are kept, and for each its fate, where anybody wants to know.

        0 is kept; 2i + 1 are those that failed at step i, 2i + 2 those that had no verdict there.
        """
        left = np.ones(rows, bool)
        fates = np.zeros(rows if self.by else 0, np.min_scalar_type(2 * len(self.sequence)))
        for i, part in enumerate(self.sequence):
            truth = combine(part, verdicts)
            fallen = left & ~truth.passed
            missing = fallen & ~truth.failed
            self._steps[i, "dropped"] += _count(fallen)
            self._steps[i, "missing"] += _count(missing)
            if self.by:
                fates += fallen * fates.dtype.type(2 * i + 1) + missing
            left &= truth.passed
        return left, fates

    def leave_out(self, without_uid: int, repeated: int, seen: bool) -> None:
        """Count rows without a uid and rows whose uid another one has: unseen, or kept by all rules."""
        rows = {FilterReason.NO_UID.value: without_uid, FilterReason.DUPLICATE_UID.value: repeated}
        (self.unfit if seen else self.unseen).update({k: n for k, n in rows.items() if n})
        if seen:
            self.kept -= without_uid + repeated
            self.total -= without_uid + repeated
        else:
            self.rows += without_uid + repeated

    @property
    def reasons(self) -> Counter[str]:
        """Reason → rows that were dropped for it."""
        found = self.unseen + self.unfit
        for i, part in enumerate(self.sequence):
            dropped, missing = self._steps[i, "dropped"], self._steps[i, "missing"]
            found[_reason(part, missing=False)] += dropped - missing
            found[_reason(part, missing=True)] += missing
        return +found

    @property
    def _fate_reasons(self) -> list[str]:
        """The reason of every fate from 1 on."""
        return [_reason(part, missing) for part in self.sequence for missing in (False, True)]

    def facts(self, learned: Mapping[str, Learned]) -> dict[str, Any]:
        """Plain JSON values, see ``docs/filters.md``."""
        falls = [(reason, rows, 0) for reason, rows in self.unseen.items()]
        for i, part in enumerate(self.sequence):
            falls.append((written(part), self._steps[i, "dropped"], self._steps[i, "missing"]))
        falls += [(reason, rows, 0) for reason, rows in self.unfit.items()]
        steps, left = [], self.rows
        in_sequence: Counter[str] = Counter()
        for name, dropped, missing in falls:
            numbers = {"rows_in": left, "dropped": dropped, "of_these_missing": missing}
            left -= dropped
            steps.append({"step": name, **numbers, "left": left})
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
            "overlap": {"rules": [r.name for r in self.rules], "both_drop": self._both.tolist()},
            "by": {column: b.facts(self._fate_reasons) for column, b in self._by.items()},
        }

    def _rule(self, rule: CompiledRule, learned: Learned, in_sequence: Counter[str]) -> dict[str, Any]:
        counts = ("rows_in", "passed", "failed")
        rows, passed, failed = (self._rules[rule.name, count] for count in counts)
        return {
            "rule": rule.name,
            "kind": rule.kind,
            "expression": rule.text,
            "words": rule.words,
            "in_keep": rule.name in self._used,
            "rows_in": rows,
            "passed": passed,
            "failed": failed,
            "missing": rows - passed - failed,
            "dropped_alone": rows - passed,
            "dropped_in_sequence": in_sequence[rule.name],
            "uniquely_dropped": self._rules[rule.name, "uniquely_dropped"],
            **_threshold(rule, learned, passed, failed),
            **rule.account(learned),
            "cuts": [cut.facts() for cut in rule.cuts(learned)],
        }


def _count(rows: Mask) -> int:
    return int(np.count_nonzero(rows))


def _not_passed(passed: Sequence[Mask], rows: int) -> Bits:
    """The rows that are not in each of some masks, a bit for each; bits behind the last row are 0."""
    bits = np.zeros((len(passed), -(-rows // 64)), np.uint64)
    for row, mask in zip(bits, passed, strict=True):
        packed = np.packbits(~mask)
        row.view(np.uint8)[: len(packed)] = packed
    return bits


def _threshold(rule: CompiledRule, learned: Learned, passed: int, failed: int) -> dict[str, Any]:
    """The value at which a rule cuts, and the share of rows with a value that lie below it."""
    bound = rule.bound(learned)
    if bound is None or bound.value is None:
        return {}
    below = failed if bound.above else passed
    quantile = below / (passed + failed) if passed + failed else None
    return {"threshold": plain(bound.value), "quantile": quantile}


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
