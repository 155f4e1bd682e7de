"""The rule ``top``: the best rows by a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from curate.config.rules.top import TopRule
from curate.rules.algorithms.spool import Floats
from curate.rules.contract import CompiledRule, Compiling, Learned, LearnedForm
from curate.rules.cuts import Cut, Operator
from curate.rules.ranking import Best, share_text
from curate.samples.pool import doubles
from curate.text.numbers import percent


@dataclass(frozen=True)
class Top(Best):
    """The best rows of all; with ``by`` see ``TopBy``."""

    settings: TopRule

    @classmethod
    def compile(cls, settings: TopRule, at: Compiling) -> CompiledRule:
        """See ``CompiledRule.compile``."""
        if settings.by is not None:
            # Imported where it is used: it takes longer than a small experiment.
            from curate.rules.kinds.groups import TopBy

            return TopBy.compile(settings, at)
        value = at.number(settings.top)
        text = f"{'lowest' if settings.lowest else 'highest'} {share_text(settings)} by {value.text}"
        text += " of the pool" if settings.of == "pool" else ""
        return cls(at.name, at.place, settings, text, (value,), 1)

    @classmethod
    def learned_form(cls, settings: Any) -> LearnedForm:
        """The last row that passes, or that of each group."""
        if settings.by is None:
            return super().learned_form(settings)
        from curate.rules.kinds.groups import TopBy

        return TopBy.learned_form(settings)

    @property
    def words(self) -> str:
        """The share in percent."""
        settings = self.settings
        best = f"with the {'lowest' if settings.lowest else 'highest'} {settings.top}"
        if settings.fraction is None:
            return f"the {settings.count:,} samples {best}"
        share = percent(settings.fraction)
        if settings.of == "pool":
            return f"as many samples as are {share} of the pool, those {best}"
        return f"the {share} of all samples {best}"

    @property
    def lowest(self) -> bool:
        """As the settings say."""
        return self.settings.lowest

    @property
    def of(self) -> Literal["left", "pool"]:
        """As the settings say."""
        return self.settings.of

    @property
    def ranking(self) -> tuple[str, ...]:
        """The highest or lowest values of the column."""
        return "low" if self.lowest else "high", self.expressions[0].sql

    def numbers(self, values: Sequence[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """The column."""
        return doubles(values[0])

    def cuts(self, learned: Learned) -> tuple[Cut, ...]:
        """The value of the last row that passes."""
        value = learned.get("value")
        op: Operator = "<=" if self.lowest else ">="
        return (Cut(self.expressions[0].subject, op, None if value is None else float(value)),)

    def note(self, learned: Learned, listed: pa.Table | None) -> str:
        """Where the cut is."""
        if learned["value"] is None:
            return "no row passes"
        value, uid, quantile = float(learned["value"]), learned["uid"], learned["quantile"]
        return f"cut at {value:.9g}, uid {uid}, quantile {quantile:.4f}"

    def account(self, learned: Learned) -> dict[str, Any]:
        """The value of the last row, and the share of rows with a value that did not pass."""
        return {"threshold": learned["value"], "quantile": learned["quantile"]}
