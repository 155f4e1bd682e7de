"""Settings of the scorer ``image``: geometry of the original image."""

from __future__ import annotations

from typing import Literal

from curate.config.scorers.base import ScorerSettings


class ImageScorer(ScorerSettings):
    """Geometry of the original image: `_min_side`, `_max_side`, `_aspect`, `_pixels`."""

    implementation = "curate.score.kinds.image:Image"
    row_local = True

    type: Literal["image"]
