"""Settings of scorers that measure pixels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.config.scorers.base import AnyScorer


class ImageStatsScorer(AnyScorer):
    """Plain measures of the pixels.

    `_blur`, `_entropy`, `_brightness`, `_contrast`, `_flat`, `_colourfulness`, `_grey_share`, `_grey`.
    """

    type: Literal["image_stats"]
    size: int = Field(
        256, ge=16, description="Longer side, in pixels, at which blur and colours are measured."
    )
    grey_tolerance: int = Field(
        8, ge=0, le=255, description="Largest difference of two channels in a pixel that counts as grey."
    )


class PerceptualScorer(AnyScorer):
    """Perceptual hashes of the stored image: `_phash`, `_dhash`, `_pdq`, `_pdq_quality`.

    Images that look alike have hashes of which few bits differ.
    """

    type: Literal["perceptual"]
    hashes: tuple[Literal["phash", "dhash", "pdq"], ...] = Field(
        ("phash", "dhash"), min_length=1, description="Which ones; `pdq` has 256 bits and a quality."
    )
