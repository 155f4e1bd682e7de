"""Settings of the scorer ``normsim``: NormSim."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from curate.config.base import knob
from curate.config.scorers.base import ArrayKey, Device, Modality, ModelAlias, ScorerSettings


class NormSimScorer(ScorerSettings):
    """NormSim: the norm of a sample's similarities with the embeddings of a target set, `_score`."""

    implementation = "curate.score.kinds.normsim:NormSim"

    type: Literal["normsim"]
    model: ModelAlias
    targets: str = Field(description="Embeddings: `.npy`, `.npz`, a folder of them, or an embeddings folder.")
    key: ArrayKey = None
    norm: Literal["inf", 2] = Field("inf", description="`inf` (the largest similarity) or 2.")
    modality: Modality = Field("image", description="Which embedding of the sample.")
    device: Device = knob("auto", "`auto`: CUDA when present.")

    @field_validator("norm", mode="before")
    @classmethod
    def _written_as_yaml_does(cls, value: object) -> object:
        return "inf" if value == float("inf") else value
