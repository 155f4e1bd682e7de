"""Where a rule cuts a column: a comparison with a number, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Operator = Literal[">", ">=", "<", "<="]

MIRRORED: Mapping[str, Operator] = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
"""The operator that says the same with both sides exchanged."""

NEGATED: Mapping[str, Operator] = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}
"""The operator that holds where another one does not."""


@dataclass(frozen=True)
class Cut:
    """A comparison that a row has to hold.

    Attributes:
        column: as it is stored, or the expression that is compared.
        value: None: it is learned, and is not known yet; or no row had a value to learn it of.
    """

    column: str
    op: Operator
    value: float | None

    @property
    def above(self) -> bool:
        """Whether larger values hold."""
        return self.op[0] == ">"

    def facts(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "column": self.column,
            "op": self.op,
            "value": None if self.value is None else plain(self.value),
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Cut:
        """The cut that has these facts."""
        value = facts["value"]
        return cls(str(facts["column"]), facts["op"], None if value is None else float(value))


def plain(value: float) -> float | str:
    """A number as JSON can hold it: infinity as text."""
    return value if np.isfinite(value) else str(value)
