"""Settings of the rule ``equal``: as many rows of each group."""

from __future__ import annotations

from pydantic import Field, model_validator

from curate.config.rules.base import Highest, Lowest, RuleSettings, Seed, give_one_preference


class EqualRule(RuleSettings):
    """As many rows of each group as the smallest group has. Drawn, or the best by a column."""

    kind = "equal"
    implementation = "curate.rules.kinds.equal:Equal"

    equal: str = Field(description="Column or expression that names the group, e.g. `source`.")
    highest: Highest = None
    lowest: Lowest = None
    seed: Seed = 0

    _one_preference = model_validator(mode="after")(give_one_preference)

    def transferable(self) -> bool:
        """The cut of each group is a threshold."""
        return True
