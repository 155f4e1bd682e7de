"""Settings of the rule ``dedup``: one row per key."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from curate.config.rules.base import Highest, Lowest, RuleSettings, give_one_preference


class DedupRule(RuleSettings):
    """One row per key: the one with the best value of a column, ties to the smaller uid.

    Rows whose key is NULL are not duplicates of each other and pass.
    """

    kind = "dedup"
    implementation = "curate.rules.kinds.dedup:Dedup"

    dedup: tuple[str, ...] = Field(min_length=1, description="Columns or expressions that form the key.")
    highest: Highest = None
    lowest: Lowest = None

    _one_preference = model_validator(mode="after")(give_one_preference)

    @field_validator("dedup", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value
