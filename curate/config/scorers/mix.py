"""Settings of the scorer ``mix``: weighted sums of other columns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from curate.config.scorers.base import ScorerSettings


class MixScorer(ScorerSettings):
    """A weighted sum of other columns, each with mean 0 and standard deviation 1 over the pool: `_score`."""

    implementation = "curate.score.kinds.mix:Mix"

    type: Literal["mix"]
    weights: dict[str, float] = Field(min_length=1, description="Column → weight.")
    standardise: bool = Field(True, description="Off: columns are summed as they are stored.")

    def uses(self) -> tuple[str, ...]:
        """The columns that have a weight."""
        return tuple(self.weights)

    @field_validator("weights")
    @classmethod
    def _finite(cls, value: dict[str, float]) -> dict[str, float]:
        for name, weight in value.items():
            if not abs(weight) < float("inf"):
                raise ValueError(f"the weight of '{name}' is {weight}; give a number")
        return value
