"""The rule ``cap``: so many rows of each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.config.rules.cap import CapRule
from curate.rules.contract import Compiling
from curate.rules.grouping import Grouped
from curate.rules.preference import preference
from curate.rules.sql.keys import key_text


@dataclass(frozen=True)
class Cap(Grouped):
    """At most so many rows of a group."""

    settings: CapRule

    whole_groups_pass = True

    @classmethod
    def compile(cls, settings: CapRule, at: Compiling) -> Cap:
        """See ``CompiledRule.compile``."""
        group = key_text(at.key(settings.cap))
        prefer = preference(at, settings.highest, settings.lowest, at.salt(settings.seed))
        text = f"at most {settings.at_most} of each {settings.cap}, {prefer.text}"
        expressions = (group, *prefer.expressions)
        return cls(at.name, at.place, settings, text, expressions, len(expressions), prefer)

    def allotted(self, smallest: int) -> Callable[[int], int]:
        """``at_most``, whatever the size of the group."""
        return lambda rows: self.settings.at_most
