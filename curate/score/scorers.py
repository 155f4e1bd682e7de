"""The kinds of scorers.

A new kind is its settings in ``curate.config.scorers``, a class in a module of this folder, and a line
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from curate.config.scorers import ScorerSettings
from curate.score.contract import Scorer
from curate.score.image import Image
from curate.score.text import Text
from curate.score.zero_shot import ZeroShot

SCORERS: dict[str, Callable[[str, Any], Scorer]] = {
    "image": Image,
    "text": Text,
    "zero_shot": ZeroShot,
}
"""``type`` of the settings → scorer, made from the scorer's name and settings."""


def scorer_of(name: str, settings: ScorerSettings) -> Scorer:
    """The scorer that a section of the config describes.

    Raises:
        UserError: a file it names is missing or is not what it should be.
    """
    return SCORERS[settings.type](name, settings)
