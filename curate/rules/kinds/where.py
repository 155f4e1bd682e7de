"""The rule ``where``: a condition on the row."""

from __future__ import annotations

from curate.config.rules.where import WhereRule
from curate.rules.contract import BoundRule, CompiledRule, Compiling, Learned, RuleFiles, Verdict
from curate.rules.cuts import Cut
from curate.rules.logic import truth_of
from curate.samples.pool import Uids


class Where(CompiledRule):
    """Rows for which the condition is true; NULL is missing."""

    any_order = True
    judges_uids = Uids.RAW

    @classmethod
    def compile(cls, settings: WhereRule, at: Compiling) -> Where:
        """See ``CompiledRule.compile``."""
        condition = at.condition(settings.where)
        return cls(at.name, at.place, settings, condition.text, (condition,), 1)

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """Pass and fail as SQL says."""
        return BoundRule(lambda rows: Verdict(truth_of(rows.values[0])))

    def cuts(self, learned: Learned) -> tuple[Cut, ...]:
        """All comparisons of a bare column with a number that stand in the condition."""
        return self.expressions[0].cuts

    def bound(self, learned: Learned) -> Cut | None:
        """Of a condition that is one such comparison and nothing more."""
        condition = self.expressions[0]
        return condition.cuts[0] if condition.is_cut else None
