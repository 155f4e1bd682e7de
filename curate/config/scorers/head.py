"""Settings of the scorer ``head``: classifier heads on stored embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from curate.config.base import knob
from curate.config.scorers.base import ScorerSettings

HeadKind = Literal[
    "nsfw_b32", "nsfw_l14", "nsfw_h14", "nsfw_datacomp", "aesthetic_v1_b32", "aesthetic_v1_b16",
    "aesthetic_v1_l14", "aesthetic_v2", "aesthetic_v2_relu", "prompts_b32", "prompts_b16", "prompts_l14",
]  # fmt: skip
"""The published heads whose files are known."""


class HeadScorer(ScorerSettings):
    """A classifier head on stored image embeddings: `_score`, or a column per named output.

    The file is what its authors published: LAION's NSFW heads (Keras zip or `.pth`), aesthetic v1
    and v2, DataComp's NSFW head, prompt vectors (`.npy`, Q16's `prompts.p`), or a safetensors file
    with a JSON file that describes its layers. See docs/heads.md.
    """

    implementation = "curate.score.kinds.head:ClassifierHead"

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    type: Literal["head"]
    file: str = Field(description="Path or fsspec URL of the head.")
    model: str = Field(description="Alias of a model of `embed.models`: the one the head was trained on.")
    published_kind: HeadKind | None = Field(
        None, alias="kind", description="Which head it is, only where shapes and file name leave it open."
    )
    any_model: bool = knob(
        False, "Trust that the embeddings are those the head was trained on, whatever the model is called."
    )
