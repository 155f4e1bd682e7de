"""Geometry of the image as it was on the web, before any resize of ours."""

from __future__ import annotations

from typing import Any

from curate.config.scorers import ImageScorer
from curate.samples.geometry import image_facts
from curate.score.contract import Columns, ColumnScorer, Shard


class Image(ColumnScorer):
    """``type: image``."""

    columns = ("original_width", "original_height")

    def __init__(self, name: str, settings: ImageScorer) -> None:
        self.settings = settings

    @property
    def facts(self) -> dict[str, Any]:
        """The settings."""
        return self.settings.facts()

    def score(self, shard: Shard) -> Columns:
        """Sides, aspect ratio, pixels."""
        return image_facts(shard.samples["original_width"], shard.samples["original_height"])
