"""Settings of the scorers. ``type`` says which scorer a section is for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from curate.config.scorers.basic import ImageScorer, TextScorer, ZeroShotScorer
from curate.config.scorers.classifiers import CategoriesScorer, ImageClassifierScorer, TextClassifierScorer
from curate.config.scorers.external import TableScorer
from curate.config.scorers.heads import HeadScorer, PromptThresholdsScorer
from curate.config.scorers.pixels import ImageStatsScorer, PerceptualScorer
from curate.config.scorers.vectors import (
    ClusterScorer,
    ConceptsScorer,
    HeldOutScorer,
    MixScorer,
    NegClipScorer,
    NormSimScorer,
)
from curate.config.scorers.words import WordsScorer

ScorerSettings = Annotated[
    TextScorer
    | ImageScorer
    | ZeroShotScorer
    | WordsScorer
    | CategoriesScorer
    | ImageClassifierScorer
    | TextClassifierScorer
    | ImageStatsScorer
    | PerceptualScorer
    | NegClipScorer
    | NormSimScorer
    | MixScorer
    | ClusterScorer
    | ConceptsScorer
    | HeldOutScorer
    | TableScorer
    | HeadScorer
    | PromptThresholdsScorer,
    Field(discriminator="type"),
]

__all__ = [
    "CategoriesScorer",
    "ClusterScorer",
    "ConceptsScorer",
    "HeadScorer",
    "HeldOutScorer",
    "ImageClassifierScorer",
    "ImageScorer",
    "ImageStatsScorer",
    "MixScorer",
    "NegClipScorer",
    "NormSimScorer",
    "PerceptualScorer",
    "PromptThresholdsScorer",
    "ScorerSettings",
    "TableScorer",
    "TextClassifierScorer",
    "TextScorer",
    "WordsScorer",
    "ZeroShotScorer",
]
