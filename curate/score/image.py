"""Geometry of the image as it was on the web, before any resize of ours."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.config.scorers import ImageScorer
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
        return score_image(shard.samples["original_width"], shard.samples["original_height"])


def score_image(
    width: pa.Array | pa.ChunkedArray, height: pa.Array | pa.ChunkedArray
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Columns of n images from their original width and height in pixels.

    ``min_side`` and ``max_side``: int32. ``aspect``: longer over shorter side, float64, at least 1, so
    that a bound such as 3 holds exactly. ``pixels``: int64. Null where a side is unknown or not positive.
    """
    sides = [_positive(pc.cast(side, pa.int64())) for side in (width, height)]
    shorter = pc.min_element_wise(*sides, skip_nulls=False)
    longer = pc.max_element_wise(*sides, skip_nulls=False)
    return {
        "min_side": pc.cast(shorter, pa.int32()),
        "max_side": pc.cast(longer, pa.int32()),
        "aspect": pc.divide(pc.cast(longer, pa.float64()), pc.cast(shorter, pa.float64())),
        "pixels": pc.multiply(shorter, longer),
    }


def _positive(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.if_else(pc.greater(values, 0), values, pa.scalar(None, pa.int64()))
