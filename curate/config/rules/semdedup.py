"""Settings of the rule ``semdedup``: one row of those that mean the same."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.config.rules.base import Highest, Lowest, RuleSettings, give_one_preference


class SemDedupRule(RuleSettings):
    """SemDeDup: one row of those in a cluster whose embeddings are nearly the same."""

    kind = "semdedup"
    implementation = "curate.rules.kinds.semdedup:SemDedup"

    semdedup: str = Field(description="Alias of a model of `embed.models`.")
    cluster: str = Field(description="Column with the number of a row's cluster, of a `cluster` scorer.")
    epsilon: float = Field(
        gt=0, le=2, description="Drops a row whose cosine with a better one is > 1 - this."
    )
    modality: Literal["image", "text"] = Field("image", description="Which embedding of the sample.")
    highest: Highest = None
    lowest: Lowest = None

    _one_preference = model_validator(mode="after")(give_one_preference)
