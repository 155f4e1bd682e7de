"""Settings of the scorer ``negclip``: negCLIPLoss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.config.base import knob
from curate.config.scorers.base import Device, ModelAlias, ScorerSettings


class NegClipScorer(ScorerSettings):
    """negCLIPLoss: CLIP similarity minus how well image and text fit anything else.

    `_score` is the similarity less the mean of `_image_norm` and `_text_norm`, which are
    temperature * log-sum-exp of the image against the texts, and of the text against the images, of
    random batches.
    """

    implementation = "curate.score.kinds.negclip:NegClip"

    type: Literal["negclip"]
    model: ModelAlias
    batch_size: int = Field(32_768, ge=2, description="Samples in a batch of the normaliser.")
    draws: int = Field(10, ge=1, le=64, description="Batches that the normaliser is averaged over.")
    sample: int | None = Field(
        None, ge=2, description="Samples of the pool that batches are drawn from. Default: 2 * batch_size."
    )
    temperature: float | None = Field(
        None, ge=0.003, description="Default: 1 / the model's logit scale (OpenAI's models: 0.01)."
    )
    seed: int = Field(0, ge=0, description="Of the sample and of the batches.")
    device: Device = knob("auto", "`auto`: CUDA when present.")

    @model_validator(mode="after")
    def _sample_holds_a_batch(self) -> NegClipScorer:
        if self.sample is not None and self.sample < self.batch_size:
            raise ValueError("`sample` must not be smaller than `batch_size`")
        return self
