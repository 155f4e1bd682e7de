"""The kinds of scorers, and what each reads and writes.

A new kind is a class here, its settings in ``curate.config.scorers``, and a line in ``SCORERS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.clip.vectors import Stored, Vectors
from curate.config.scorers import ImageScorer, TextScorer, ZeroShotScorer
from curate.score.image import score_image
from curate.score.prompts import prompts_of
from curate.score.text import score_text
from curate.score.zero_shot import TAGS, joined, tag_images

EncodeTexts = Callable[[tuple[str, ...]], tuple[Vectors, float]]
"""Prompts → their unit vectors (n, dim) and the model's logit scale."""


class Scorer(ABC):
    """Columns of a shard's samples → columns of scores. Holds settings only.

    Attributes:
        inputs: sample columns that it reads.
        model: alias of the model whose image embeddings it reads, or None.
    """

    inputs: ClassVar[tuple[str, ...]] = ()
    model: str | None = None

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What decides the output bytes."""

    @abstractmethod
    def score(self, samples: pa.Table, vectors: Stored | None, encode: EncodeTexts) -> Mapping[str, Any]:
        """Scores of n samples, name without the scorer's prefix → Arrow array (n,).

        Args:
            samples: ``uid`` and ``inputs``.
            vectors: image embeddings (n, dim) of ``model``, NaN rows where there is none.
            encode: embeds prompts with ``model``.
        """


class Text(Scorer):
    """``text``: see ``curate.score.text``."""

    inputs = ("text",)

    def __init__(self, name: str, settings: TextScorer) -> None:
        self.settings = settings

    @property
    def facts(self) -> dict[str, Any]:
        """The settings."""
        return self.settings.facts()

    def score(self, samples: pa.Table, vectors: Stored | None, encode: EncodeTexts) -> Mapping[str, Any]:
        """Length, words, language."""
        return score_text(samples["text"])


class Image(Scorer):
    """``image``: see ``curate.score.image``."""

    inputs = ("original_width", "original_height")

    def __init__(self, name: str, settings: ImageScorer) -> None:
        self.settings = settings

    @property
    def facts(self) -> dict[str, Any]:
        """The settings."""
        return self.settings.facts()

    def score(self, samples: pa.Table, vectors: Stored | None, encode: EncodeTexts) -> Mapping[str, Any]:
        """Sides, aspect ratio, pixels."""
        return score_image(samples["original_width"], samples["original_height"])


class ZeroShot(Scorer):
    """``zero_shot``: see ``curate.score.zero_shot``."""

    def __init__(self, name: str, settings: ZeroShotScorer) -> None:
        self.settings = settings
        self.model = settings.model
        self.prompts = prompts_of(name, settings)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the prompts themselves in place of where they come from."""
        lists = {"positive": list(self.prompts.positive), "negative": list(self.prompts.negative)}
        return {**self.settings.facts(), "prompts": None, **lists}

    def score(self, samples: pa.Table, vectors: Stored | None, encode: EncodeTexts) -> Mapping[str, Any]:
        """Probability of the positive list, best prompt, tag."""
        assert vectors is not None
        texts = (*self.prompts.positive, *self.prompts.negative)
        encoded, scale = encode(texts)
        positive, negative = np.split(encoded, [len(self.prompts.positive)])
        step = self.settings.batch_rows
        tagged = joined(
            [
                tag_images(vectors[i : i + step], positive, negative, self.settings.logit_scale or scale)
                for i in range(0, len(vectors), step)
            ]
        )
        missing = tagged.top < 0
        return {
            "score": pa.array(tagged.score, mask=missing),
            "top": pa.array(texts, pa.string()).take(pa.array(tagged.top, mask=missing)),
            "tag": pa.array(TAGS, pa.string()).take(pa.array(tagged.tag, mask=missing)),
        }


SCORERS: dict[str, type[Text] | type[Image] | type[ZeroShot]] = {
    "text": Text,
    "image": Image,
    "zero_shot": ZeroShot,
}
"""Type name of the settings → scorer."""
