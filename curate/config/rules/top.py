"""Settings of the rule ``top``: the best rows by a number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.config.rules.base import Count, Fraction, Number, RuleSettings, give_one


class TopRule(RuleSettings):
    """The best (or worst) fraction of the rows by a column: exactly floor(fraction * n) rows.

    Ties at the cut go to the smaller uid. Rows whose value is NULL or NaN are never kept; the
    fraction is still taken of all rows, as DataComp does.
    """

    kind = "top"
    implementation = "curate.rules.kinds.top:Top"

    top: Number
    fraction: Fraction = None
    count: Count = None
    lowest: bool = Field(False, description="Keep the lowest instead of the highest values.")
    by: str | None = Field(None, description="Column or expression: so many of each group.")
    of: Literal["left", "pool"] = Field(
        "left",
        description="Inside a `then`, what the fraction is of: what the parts before left, or the pool.",
    )

    def transferable(self) -> bool:
        """The cut is a threshold."""
        return True

    @model_validator(mode="after")
    def _consistent(self) -> TopRule:
        give_one(self, "fraction", "count")
        if self.by is not None and self.of == "pool":
            raise ValueError("`of: pool` and `by` do not go together: a group is counted where it is cut")
        return self
