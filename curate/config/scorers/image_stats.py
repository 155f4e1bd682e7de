"""Settings of the scorer ``image_stats``: plain measures of the pixels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.config.scorers.base import ScorerSettings


class ImageStatsScorer(ScorerSettings):
    """Plain measures of the pixels.

    `_blur`, `_entropy`, `_brightness`, `_contrast`, `_flat`, `_colourfulness`, `_grey_share`, `_grey`.
    """

    implementation = "curate.score.kinds.image_stats:ImageStats"

    type: Literal["image_stats"]
    size: int = Field(
        256, ge=16, description="Longer side, in pixels, at which blur and colours are measured."
    )
    grey_tolerance: int = Field(
        8, ge=0, le=255, description="Largest difference of two channels in a pixel that counts as grey."
    )
