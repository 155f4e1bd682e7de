"""Settings of the scorer ``text_classifier``: transformers classifiers on the alt text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.config.scorers.base import ClassifierSettings


class TextClassifierScorer(ClassifierSettings):
    """A transformers sequence classifier on the alt text: a column per label.

    Needs the extra `transformers`. `preset: detoxify` names the seven outputs of Detoxify's unbiased and
    multilingual models, which DataComp dropped captions by (any of them above 0.1).
    """

    implementation = "curate.score.kinds.text_classifier:TextClassifier"

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
