"""Settings of the rule ``sample``: rows drawn without replacement."""

from __future__ import annotations

from pydantic import Field, model_validator

from curate.config.rules.base import Count, Fraction, RuleSettings, Seed, give_one


class SampleRule(RuleSettings):
    """Rows drawn without replacement."""

    kind = "sample"
    implementation = "curate.rules.kinds.sample:Sample"

    sample: str = Field(description="`uniform`, or a column or expression with the weight of a row.")
    fraction: Fraction = None
    count: Count = None
    seed: Seed = 0

    def transferable(self) -> bool:
        """The last number that was drawn is a threshold."""
        return True

    @model_validator(mode="after")
    def _consistent(self) -> SampleRule:
        give_one(self, "fraction", "count")
        return self
