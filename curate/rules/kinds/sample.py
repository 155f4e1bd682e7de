"""The rule ``sample``: rows drawn without replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.config.rules.sample import SampleRule
from curate.rules.algorithms.draws import uniforms, words_of
from curate.rules.algorithms.spool import Floats
from curate.rules.contract import Compiling
from curate.rules.logic import Mask
from curate.rules.ranking import Best, share_text
from curate.samples.pool import Uids, doubles

UNIFORM = "uniform"


@dataclass(frozen=True)
class Sample(Best):
    """Rows drawn without replacement, by weight when there is an expression.

    By weight a row's number is log(u) / weight, u uniform: the largest are a draw one after the other
    with probabilities in proportion to the weights (Efraimidis and Spirakis, Weighted random sampling
    with a reservoir, 2006, algorithm A).
    """

    settings: SampleRule
    salt: int

    learns_uids = Uids.RAW

    @classmethod
    def compile(cls, settings: SampleRule, at: Compiling) -> Sample:
        """See ``CompiledRule.compile``."""
        weight = () if settings.sample == UNIFORM else (at.number(settings.sample),)
        text = f"{share_text(settings)} drawn" + (f" by {settings.sample}" if weight else "")
        return cls(at.name, at.place, settings, text, weight, len(weight), at.salt(settings.seed))

    @property
    def ranking(self) -> tuple[str, ...]:
        """The highest of these random numbers."""
        return "high", "drawn", str(self.salt), *(e.sql for e in self.expressions)

    def numbers(self, values: Sequence[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """Random numbers; NaN without a finite positive weight."""
        drawn = uniforms(words_of(uids, self.salt))
        if not values:
            return drawn
        weights = doubles(values[0])
        usable = (weights > 0) & np.isfinite(weights)
        with np.errstate(over="ignore"):
            return np.where(usable, np.log(drawn) / np.where(usable, weights, 1.0), np.nan)

    def hopeless(self, values: Sequence[pa.ChunkedArray]) -> Mask | None:
        """A weight of zero or less is never drawn."""
        return doubles(values[0]) <= 0 if values else None
