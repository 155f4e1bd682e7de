"""Settings of the scorer ``image_classifier``: timm classifiers on the pixels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.config.base import knob
from curate.config.scorers.base import ClassifierSettings

Triple = tuple[float, float, float]


class ImageClassifierScorer(ClassifierSettings):
    """A timm classifier on the pixels: a column per label.

    `preset: laion_watermark` is the detector behind LAION-5B's `pwatermark`; its weights are a file of yours.
    """

    implementation = "curate.score.kinds.image_classifier:ImageClassifier"

    type: Literal["image_classifier"]
    preset: Literal["laion_watermark"] | None = Field(
        None, description="Architecture, labels and preprocessing of a known model."
    )
    architecture: str | None = Field(None, description="A name of timm's, such as `efficientnet_b0`.")
    file: str | None = Field(
        None,
        description="Weights: .safetensors, or a state dict of torch. Default: timm's own from its hub.",
    )
    size: int | None = Field(None, ge=8, description="Side of the input, pixels. Default: the model's.")
    resize: Literal["squash", "crop"] | None = Field(
        None,
        description="`crop`: the shorter side is scaled and the centre cut out; `squash`: both sides are "
        "scaled. Default: the preset's, else crop.",
    )
    mean: Triple | None = Field(None, description="Of the channels, 0 to 1. Default: the model's.")
    std: Triple | None = Field(None, description="Of the channels. Default: the model's.")
    batch_size: int = knob(32, "Images per forward pass.", ge=1)

    @model_validator(mode="after")
    def _is_a_model(self) -> ImageClassifierScorer:
        if (self.preset is None) == (self.architecture is None):
            raise ValueError("needs either `architecture` or `preset`")
        if self.preset is not None:
            if self.file is None:
                raise ValueError(f"`preset: {self.preset}` needs `file`, the weights")
            fixed = ("labels", "activation", "size", "resize", "mean", "std")
            given = [key for key in fixed if key in self.model_fields_set]
            if given:
                raise ValueError(f"`preset: {self.preset}` settles {', '.join(given)}; leave it out")
        return self
