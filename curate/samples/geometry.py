"""Geometry of an image as it was on the web."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

TYPES = {"min_side": pa.int32(), "max_side": pa.int32(), "aspect": pa.float64(), "pixels": pa.int64()}


def image_facts(
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
