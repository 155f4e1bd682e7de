"""``type: image``: geometry of the image as it was on the web, before any resize of ours."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from curate.config.scorers.image import ImageScorer
from curate.samples.geometry import TYPES, image_facts
from curate.score.contract import Columns, RowScorer


class Image(RowScorer[ImageScorer]):
    """Sides, aspect ratio, pixels."""

    columns = ("original_width", "original_height")
    outputs = pa.schema(TYPES)

    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        """All of them at once: they cost next to nothing."""
        return image_facts(samples["original_width"], samples["original_height"])
