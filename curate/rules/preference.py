"""Which of several rows is the better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.rules.algorithms.draws import uniforms, words_of
from curate.rules.contract import Compiling
from curate.rules.sql.expressions import Expression
from curate.samples.pool import doubles

Floats = npt.NDArray[np.float64]


_LOWEST = np.finfo(np.float64).min
"""Stands for minus infinity, which is still better than no value."""


@dataclass(frozen=True)
class Preference:
    """By a column, by a seeded draw, or by nothing; of equals the smaller uid is better.

    Attributes:
        by: gives what is better where it is larger; None: the salt decides.
        salt: of the draw; None: all rows are equal.
        text: for people.
    """

    by: Expression | None
    salt: int | None
    text: str

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """What has to be evaluated."""
        return (self.by,) if self.by else ()

    def ranks(self, values: Sequence[pa.ChunkedArray], uids: pa.ChunkedArray) -> Floats:
        """Larger is better, float64, shape (n,), without NaN: no value is the lowest.

        Args:
            values: the evaluated expressions.
        """
        if self.by is not None:
            ranks = doubles(values[0]) + 0.0
            return np.where(np.isnan(ranks), -np.inf, np.maximum(ranks, _LOWEST))
        if self.salt is not None:
            return uniforms(words_of(uids, self.salt))
        return np.zeros(len(uids))


BY_UID = Preference(None, None, "smallest uid")


def preference(at: Compiling, highest: str | None, lowest: str | None, salt: int | None = None) -> Preference:
    """Check ``highest`` or ``lowest`` of a rule. Raises UserError, see ``Checker.check``."""
    if highest is not None:
        return Preference(at.number(highest, "highest"), None, f"highest {highest}")
    if lowest is not None:
        return Preference(negated(at.number(lowest, "lowest")), None, f"lowest {lowest}")
    return BY_UID if salt is None else Preference(None, salt, "drawn")


def negated(number: Expression) -> Expression:
    """The expression with the other sign."""
    return replace(number, sql=f"-({number.sql})", type="DOUBLE", short=None, cuts=(), column=None)
