"""Settings of the rule ``cap``: so many rows of each group."""

from __future__ import annotations

from pydantic import Field, model_validator

from curate.config.rules.base import Highest, Lowest, RuleSettings, Seed, give_one_preference


class CapRule(RuleSettings):
    """At most so many rows of each group: of a cluster, of a host. Drawn, or the best by a column."""

    kind = "cap"
    implementation = "curate.rules.kinds.cap:Cap"

    cap: str = Field(description="Column or expression that names the group.")
    at_most: int = Field(ge=1, description="Rows of a group.")
    highest: Highest = None
    lowest: Lowest = None
    seed: Seed = 0

    _one_preference = model_validator(mode="after")(give_one_preference)

    def transferable(self) -> bool:
        """The cut of each group is a threshold."""
        return True
