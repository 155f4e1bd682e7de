"""Settings of the scorers. ``type`` says which scorer a section is for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from curate.config.scorers.basic import ImageScorer, TextScorer, ZeroShotScorer

ScorerSettings = Annotated[TextScorer | ImageScorer | ZeroShotScorer, Field(discriminator="type")]

__all__ = ["ImageScorer", "ScorerSettings", "TextScorer", "ZeroShotScorer"]
