"""Settings of the rule ``hard_cap``: rows drawn with replacement, each at most so many times."""

from __future__ import annotations

from pydantic import Field

from curate.config.rules.base import RuleSettings, Seed


class HardCapRule(RuleSettings):
    """Hard cap sampling: rows drawn with replacement by softmax, each at most so many times."""

    kind = "hard_cap"
    implementation = "curate.rules.kinds.caps:HardCap"

    hard_cap: str = Field(description="Column or expression with the score, a logit.")
    count: int | None = Field(None, ge=1, description="Draws in all. Default: one for each row it looks at.")
    at_most: int = Field(15, ge=1, le=10_000, description="Copies of a row.")
    seed: Seed = 0
