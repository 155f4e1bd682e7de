"""Settings of scorers that run published heads and lists of concepts on stored image embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.config.base import knob
from curate.config.scorers.base import AnyScorer

HeadKind = Literal[
    "nsfw_b32", "nsfw_l14", "nsfw_h14", "nsfw_datacomp", "aesthetic_v1_b32", "aesthetic_v1_b16",
    "aesthetic_v1_l14", "aesthetic_v2", "aesthetic_v2_relu", "prompts_b32", "prompts_b16", "prompts_l14",
]  # fmt: skip
"""The published heads whose files are known."""


class HeadScorer(AnyScorer):
    """A classifier head on stored image embeddings: `_score`, or a column per named output.

    The file is what its authors published: LAION's NSFW heads (Keras zip or `.pth`), aesthetic v1
    and v2, DataComp's NSFW head, prompt vectors (`.npy`, Q16's `prompts.p`), or a safetensors file
    with a JSON file that describes its layers. See docs/heads.md.
    """

    type: Literal["head"]
    file: str = Field(description="Path or fsspec URL of the head.")
    model: str = Field(description="Alias of a model of `embed.models`: the one the head was trained on.")
    kind: HeadKind | None = Field(
        None, description="Which head it is, only where shapes and file name leave it open."
    )
    any_model: bool = knob(
        False, "Trust that the embeddings are those the head was trained on, whatever the model is called."
    )


class PromptThresholdsScorer(AnyScorer):
    """Concepts with a threshold each, as LAION's `safety_settings.yml`.

    The image embedding is compared with the text embedding of every concept. `_score` is the largest
    cosine less its concept's threshold: above 0, something was found. `_top` is that concept, `_hits`
    how many were found. With special concepts in the file: `_special` says whether one of them was
    found, and then `special_adjustment` is added to the others' cosines.
    """

    type: Literal["prompt_thresholds"]
    file: str = Field(description="Path or fsspec URL of a YAML file of groups of concepts.")
    model: str = Field(description="Alias of a model of `embed.models`.")
    adjustment: float = Field(0.0, description="Added to every cosine: above 0 is stricter.")
    special_adjustment: float = Field(
        0.01, description="Added to the concepts' cosines where a special concept was found."
    )
