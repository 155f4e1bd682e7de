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
    that a bound such as 3 holds exactly. ``pixels``: int64. Null where a
    side is unknown, below 1 or beyond 2**31 - 1; fractions of a pixel are cut off.
    """
    sides = [_side(side) for side in (width, height)]
    shorter = pc.min_element_wise(*sides, skip_nulls=False)
    longer = pc.max_element_wise(*sides, skip_nulls=False)
    return {
        "min_side": pc.cast(shorter, pa.int32()),
        "max_side": pc.cast(longer, pa.int32()),
        "aspect": pc.divide(pc.cast(longer, pa.float64()), pc.cast(shorter, pa.float64())),
        "pixels": pc.multiply(shorter, longer),
    }


def _side(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Whole pixels, int64; tables made elsewhere have NaN, fractions, texts and nonsense among them."""
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        digits = pc.match_substring_regex(values, r"^[0-9]{1,10}$")
        values = pc.if_else(digits, values, pa.scalar(None, values.type))
    sides = pc.cast(values, pa.float64(), safe=False)
    known = pc.and_(pc.greater_equal(sides, 1), pc.less(sides, 2**31))
    return pc.cast(pc.floor(pc.if_else(known, sides, pa.scalar(None, pa.float64()))), pa.int64())
