"""Settings of the rule ``score``: bounds of a number."""

from __future__ import annotations

from pydantic import Field, model_validator

from curate.config.rules.base import Number, RuleSettings


class ScoreRule(RuleSettings):
    """Bounds of one column, as numbers or as quantiles of the rows that it looks at."""

    kind = "score"
    implementation = "curate.rules.kinds.score:Score"

    score: Number
    min: float | None = Field(None, allow_inf_nan=False, description="Keeps values >= this.")
    max: float | None = Field(None, allow_inf_nan=False, description="Keeps values <= this.")
    above: float | None = Field(None, allow_inf_nan=False, description="Keeps values > this.")
    below: float | None = Field(None, allow_inf_nan=False, description="Keeps values < this.")
    min_quantile: float | None = Field(
        None, ge=0, lt=1, description="Keeps values >= this quantile; 0.7 keeps the upper 30 % and ties."
    )
    max_quantile: float | None = Field(
        None, gt=0, le=1, description="Keeps values <= this quantile; 0.7 keeps the lower 70 % and ties."
    )

    def transferable(self) -> bool:
        """Of a rule with a quantile."""
        return self.min_quantile is not None or self.max_quantile is not None

    @model_validator(mode="after")
    def _has_bounds(self) -> ScoreRule:
        given = {
            n: v for n in type(self).model_fields if n != "score" and (v := getattr(self, n)) is not None
        }
        if not given:
            raise ValueError("a score needs a bound: min, max, above, below, min_quantile or max_quantile")
        for low, high in (("min", "max"), ("min_quantile", "max_quantile")):
            if low in given and high in given and given[low] > given[high]:
                raise ValueError(f"`{low}` is greater than `{high}`: nothing could pass")
        return self
