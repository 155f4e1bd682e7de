"""Settings of the scorer ``prompt_thresholds``: prompts with a threshold each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.config.scorers.base import ModelAlias, ScorerSettings


class PromptThresholdsScorer(ScorerSettings):
    """Concepts with a threshold each, as LAION's `safety_settings.yml`.

    The image embedding is compared with the text embedding of every concept. `_score` is the largest
    cosine less its concept's threshold: above 0, something was found. `_top` is that concept, `_hits`
    how many were found. With special concepts in the file: `_special` says whether one of them was
    found, and then `special_adjustment` is added to the others' cosines.
    """

    implementation = "curate.score.kinds.prompt_thresholds:PromptThresholds"

    type: Literal["prompt_thresholds"]
    file: str = Field(description="Path or fsspec URL of a YAML file of groups of concepts.")
    model: ModelAlias
    adjustment: float = Field(0.0, description="Added to every cosine: above 0 is stricter.")
    special_adjustment: float = Field(
        0.01, description="Added to the concepts' cosines where a special concept was found."
    )
