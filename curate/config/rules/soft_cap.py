"""Settings of the rule ``soft_cap``: rows drawn again and again, each time less likely."""

from __future__ import annotations

from pydantic import Field

from curate.config.rules.base import RuleSettings, Seed


class SoftCapRule(RuleSettings):
    """Soft cap sampling: rows drawn again and again by softmax, each time a little less likely."""

    kind = "soft_cap"
    implementation = "curate.rules.kinds.caps:SoftCap"

    soft_cap: str = Field(description="Column or expression with the score, a logit.")
    count: int | None = Field(
        None, ge=1, le=2**40, description="Draws in all. Default: one for each row it looks at."
    )
    alpha: float = Field(0.15, ge=0, allow_inf_nan=False, description="What a draw takes from the score.")
    batch: int = Field(100_000, ge=1, description="Different rows that are drawn together.")
    seed: Seed = 0
