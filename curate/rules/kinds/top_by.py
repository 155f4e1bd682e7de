"""The rule ``top`` with ``by``: the best rows of each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.config.rules.top import TopRule
from curate.rules.algorithms.spool import rows_of_fraction
from curate.rules.contract import Compiling
from curate.rules.grouping import Grouped
from curate.rules.preference import BY_UID, negated
from curate.rules.ranking import share_text
from curate.rules.sql.keys import key_text


@dataclass(frozen=True)
class TopBy(Grouped):
    """The best fraction of each group, or so many rows of it."""

    settings: TopRule

    needs_value = True

    @classmethod
    def compile(cls, settings: TopRule, at: Compiling) -> TopBy:
        """See ``CompiledRule.compile``."""
        assert settings.by is not None
        value = at.number(settings.top)
        group = key_text(at.key(settings.by, "by"))
        best = f"{'lowest' if settings.lowest else 'highest'} {share_text(settings)} by {value.text}"
        value = negated(value) if settings.lowest else value
        text = f"{best} of each {settings.by}"
        return cls(at.name, at.place, settings, text, (group, value), 2, BY_UID)

    @property
    def kind(self) -> str:
        """Told apart from a ``top`` of all rows."""
        return "top_by"

    def allotted(self, smallest: int) -> Callable[[int], int]:
        """floor(fraction * n), or the count."""
        fraction, count = self.settings.fraction, self.settings.count or 0
        if fraction is None:
            return lambda rows: count
        return lambda rows: rows_of_fraction(fraction, rows)
