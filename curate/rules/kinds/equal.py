"""The rule ``equal``: as many rows of each group as the smallest has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from curate.config.rules.equal import EqualRule
from curate.rules.contract import Compiling, Learned
from curate.rules.grouping import Grouped
from curate.rules.preference import preference
from curate.rules.sql.keys import key_text


@dataclass(frozen=True)
class Equal(Grouped):
    """As many rows of each group as the smallest has."""

    settings: EqualRule

    @classmethod
    def compile(cls, settings: EqualRule, at: Compiling) -> Equal:
        """See ``CompiledRule.compile``."""
        group = key_text(at.key(settings.equal))
        prefer = preference(at, settings.highest, settings.lowest, at.salt(settings.seed))
        text = f"as many of each {settings.equal} as of the rarest, {prefer.text}"
        expressions = (group, *prefer.expressions)
        return cls(at.name, at.place, settings, text, expressions, len(expressions), prefer)

    def allotted(self, smallest: int) -> Callable[[int], int]:
        """Rows of the smallest group."""
        return lambda rows: smallest

    def account(self, learned: Learned) -> dict[str, Any]:
        """Also how many rows of each group stay."""
        return {**super().account(learned), "rows_each": learned["smallest"]}
