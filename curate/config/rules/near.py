"""Settings of the rule ``near``: one row of those that look alike."""

from __future__ import annotations

from pydantic import Field, model_validator

from curate.config.rules.base import Highest, Lowest, RuleSettings, give_one_preference


class NearRule(RuleSettings):
    """One row of those whose 64-bit hashes (pHash, dHash) differ in few bits.

    In order of preference a row stays unless one that stays already is within the distance.
    """

    kind = "near"
    implementation = "curate.rules.kinds.near:Near"

    near: str = Field(description="Column of 64-bit hashes.")
    distance: int = Field(ge=0, le=16, description="So many differing bits are still one picture.")
    highest: Highest = None
    lowest: Lowest = None

    _one_preference = model_validator(mode="after")(give_one_preference)
