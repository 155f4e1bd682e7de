"""The kinds of scorers.

A new kind is its settings in ``curate.config.scorers``, a class in a module of this folder, and a line
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from curate.config.scorers import ScorerSettings
from curate.score.categories import Categories
from curate.score.contract import Scorer
from curate.score.heads.scorer import HeadOnVectors
from curate.score.heads.thresholds import PromptThresholds
from curate.score.image import Image
from curate.score.image_classifier import ImageClassifier
from curate.score.image_stats import ImageStats
from curate.score.mix import Mix
from curate.score.perceptual import Perceptual
from curate.score.table import Table
from curate.score.text import Text
from curate.score.text_classifier import TextClassifier
from curate.score.vectors.cluster import Cluster
from curate.score.vectors.concepts import Concepts
from curate.score.vectors.held_out import HeldOut
from curate.score.vectors.negclip import NegClip
from curate.score.vectors.normsim import normsim_of
from curate.score.words import Words
from curate.score.zero_shot import ZeroShot

SCORERS: dict[str, Callable[[str, Any], Scorer]] = {
    "categories": Categories,
    "cluster": Cluster,
    "concepts": Concepts,
    "head": HeadOnVectors,
    "held_out": HeldOut,
    "image": Image,
    "image_classifier": ImageClassifier,
    "image_stats": ImageStats,
    "mix": Mix,
    "negclip": NegClip,
    "normsim": normsim_of,
    "perceptual": Perceptual,
    "prompt_thresholds": PromptThresholds,
    "table": Table,
    "text": Text,
    "text_classifier": TextClassifier,
    "words": Words,
    "zero_shot": ZeroShot,
}
"""``type`` of the settings → scorer, made from the scorer's name and settings."""


def scorer_of(name: str, settings: ScorerSettings) -> Scorer:
    """The scorer that a section of the config describes.

    Raises:
        UserError: a file it names is missing or is not what it should be.
    """
    return SCORERS[settings.type](name, settings)
