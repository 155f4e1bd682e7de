"""Settings of the rule ``frequency``: how often a value occurs."""

from __future__ import annotations

from pydantic import Field, model_validator

from curate.config.rules.base import RuleSettings


class FrequencyRule(RuleSettings):
    """Rows whose value occurs so many times among the rows that it looks at."""

    kind = "frequency"
    implementation = "curate.rules.kinds.frequency:Frequency"

    frequency: str = Field(description="Column or expression whose values are counted, e.g. `text`.")
    at_most: int | None = Field(None, ge=1, description="Keeps values that occur at most this often.")
    at_least: int | None = Field(None, ge=1, description="Keeps values that occur at least this often.")

    def transferable(self) -> bool:
        """Values that are frequent there are frequent here."""
        return True

    @model_validator(mode="after")
    def _has_bounds(self) -> FrequencyRule:
        if self.at_most is None and self.at_least is None:
            raise ValueError("give `at_most`, `at_least` or both")
        if self.at_most is not None and self.at_least is not None and self.at_most < self.at_least:
            raise ValueError("`at_least` is greater than `at_most`: nothing could pass")
        return self
