"""The rule ``digits``: captions that are not mostly numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from curate.config.rules.base import RuleSettings
from curate.rules.contract import BoundRule, CompiledRule, Compiling, Learned, Rows, RuleFiles, Verdict
from curate.rules.logic import Truth


class DigitsRule(RuleSettings):
    """Captions of which at most a share of the characters are digits; an empty one has no share."""

    kind = "digits"
    implementation = "curate_example.rule:Digits"

    digits: str = Field(description="Column or expression with the caption.")
    at_most: float = Field(0.5, ge=0, le=1, description="Share of the characters.")


class Digits(CompiledRule):
    """NULL and the empty caption are missing."""

    any_order = True

    @classmethod
    def compile(cls, settings: DigitsRule, at: Compiling) -> Digits:
        """See ``CompiledRule.compile``."""
        caption = at.caption(settings.digits)
        text = f"at most {settings.at_most:g} of {settings.digits} are digits"
        return cls(at.name, at.place, settings, text, (caption,), 1)

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """Looks at nothing but the caption."""
        settings: Any = self.settings

        def judge(rows: Rows) -> Verdict:
            captions = rows.values[0]
            digits = np.asarray(pc.count_substring_regex(captions, "[0-9]").fill_null(0))
            length = np.asarray(pc.utf8_length(captions).fill_null(0))
            passed = (digits <= settings.at_most * length) & (length > 0)
            return Verdict(Truth(passed, (length > 0) & ~passed))

        return BoundRule(judge)
