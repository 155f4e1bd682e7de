"""Settings of the scorer ``perceptual``: perceptual hashes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.config.scorers.base import ScorerSettings


class PerceptualScorer(ScorerSettings):
    """Perceptual hashes of the stored image: `_phash`, `_dhash`, `_pdq`, `_pdq_quality`.

    Images that look alike have hashes of which few bits differ.
    """

    implementation = "curate.score.kinds.perceptual:Perceptual"

    type: Literal["perceptual"]
    hashes: tuple[Literal["phash", "dhash", "pdq"], ...] = Field(
        ("phash", "dhash"), min_length=1, description="Which ones; `pdq` has 256 bits and a quality."
    )
