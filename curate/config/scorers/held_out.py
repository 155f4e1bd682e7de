"""Settings of the scorer ``held_out``: distance to an evaluation set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.config.base import knob
from curate.config.scorers.base import ArrayKey, Device, Modality, ModelAlias, ScorerSettings


class HeldOutScorer(ScorerSettings):
    """Nearest of an evaluation set's embeddings: `_similarity`, and its `_file` and `_row`."""

    implementation = "curate.score.kinds.held_out:HeldOut"

    type: Literal["held_out"]
    model: ModelAlias
    vectors: str = Field(description="Embeddings: `.npy`, `.npz`, a folder of them, or an embeddings folder.")
    key: ArrayKey = None
    modality: Modality = Field("image", description="Which embedding of the sample.")
    device: Device = knob("auto", "`auto`: CUDA when present.")
