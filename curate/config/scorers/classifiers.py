"""Settings of scorers that run a classifier of their own, and of categories by prompts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from curate.config.base import knob
from curate.config.scorers.base import AnyScorer

Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=64)]
"""A name that becomes part of a column's."""

Triple = tuple[float, float, float]


class _Classifier(AnyScorer):
    """What classifiers of texts and of images share."""

    activation: Literal["auto", "sigmoid", "softmax"] = Field(
        "auto",
        description="`softmax`: the labels exclude each other; `sigmoid`: they do not. "
        "`auto`: what the preset or the model's configuration says, else softmax.",
    )
    labels: tuple[Label, ...] = Field(
        (),
        description="Names of the first outputs, in the model's order. Default: the preset's or the model's.",
    )
    keep: tuple[Label, ...] = Field((), description="Labels to store. Default: all that have a name.")
    device: Literal["auto", "cpu", "cuda"] = knob("auto", "`auto`: CUDA when present.")
    batch_size: int = knob(64, "Samples per forward pass.", ge=1)

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> _Classifier:
        for key in ("labels", "keep"):
            names = getattr(self, key)
            if len(set(names)) != len(names):
                raise ValueError(f"{key}: a label is there twice")
        if self.labels and not set(self.keep) <= set(self.labels):
            unknown = sorted(set(self.keep) - set(self.labels))
            raise ValueError(f"keep: not among the labels: {', '.join(unknown)}")
        return self


class TextClassifierScorer(_Classifier):
    """A transformers sequence classifier on the alt text: a column per label.

    Needs the extra `transformers`. `preset: detoxify` names the seven outputs of Detoxify's unbiased and
    multilingual models, which DataComp dropped captions by (any of them above 0.1).
    """

    type: Literal["text_classifier"]
    checkpoint: str = Field(
        description="A local folder (config.json, weights, tokenizer), or a hub id such as "
        "`unitary/multilingual-toxic-xlm-roberta`."
    )
    revision: str | None = Field(None, description="Of a hub id: a commit or tag.")
    preset: Literal["detoxify"] | None = Field(None, description="Labels and activation of a known family.")
    max_length: int | None = Field(
        None,
        ge=4,
        description="Tokens of a caption that are read. Default: what the model takes, at most 512.",
    )


class ImageClassifierScorer(_Classifier):
    """A timm classifier on the pixels: a column per label.

    `preset: laion_watermark` is the detector behind LAION-5B's `pwatermark`; its weights are a file of yours.
    """

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


class CategoriesScorer(AnyScorer):
    """What kind of picture it is, by prompts over stored CLIP vectors: `_best`, `_probability`, `_margin`.

    The prompts of a category are averaged, softmax over the categories at the model's logit scale.
    """

    type: Literal["categories"]
    model: str = Field(description="Alias of a model of `embed.models`.")
    categories: dict[Label, tuple[str, ...]] = Field(
        {}, description="Category → prompts. Default: those of `prompts`."
    )
    prompts: str | None = Field(
        None, description="A shipped list (`data_types`, the default) or a YAML file with `categories:`."
    )
    probabilities: bool = Field(False, description="Also a column `_p_<category>` for every category.")
    logit_scale: float | None = Field(None, gt=0, description="Default: the model's own.")
    batch_rows: int = knob(16_384, "Rows scored at once.", ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> CategoriesScorer:
        if self.categories and self.prompts is not None:
            raise ValueError("give either `prompts` or `categories`, not both")
        return self
