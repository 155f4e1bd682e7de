"""``type: image_stats``: plain measures of an image's pixels: sharpness, information, light, colour."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from curate.config.scorers.image_stats import ImageStatsScorer
from curate.score.contract import Columns, ImageScores, PixelScorer, Shard

Channel = npt.NDArray[np.uint8]

MEASURES = ("blur", "entropy", "brightness", "contrast", "flat", "colourfulness", "grey_share")
"""Columns of float32, in order; ``grey`` comes on top."""


class ImageStats(PixelScorer[ImageStatsScorer]):
    """See ``measure``; ``grey`` says whether all pixels are."""

    outputs = pa.schema([*((name, pa.float32()) for name in MEASURES), ("grey", pa.bool_())])

    def start(self, shard: Shard) -> ImageScores:
        """Measure every image as it comes."""
        return _Stats(len(shard), self.settings.size, self.settings.grey_tolerance)


class _Stats:
    def __init__(self, rows: int, size: int, tolerance: int) -> None:
        self.size, self.tolerance = size, tolerance
        self.missing = np.ones(rows, bool)
        self.values = np.zeros((rows, len(MEASURES)), np.float32)

    def add(self, row: int, image: Image.Image) -> None:
        self.missing[row] = False
        measured = measure(image, self.size, self.tolerance)
        self.values[row] = [measured[name] for name in MEASURES]

    def columns(self) -> Columns:
        columns = {n: pa.array(self.values[:, i], mask=self.missing) for i, n in enumerate(MEASURES)}
        return {**columns, "grey": pa.array(self.values[:, -1] == 1, mask=self.missing)}


def measure(image: Image.Image, size: int = 256, tolerance: int = 8) -> dict[str, float]:
    """The measures of an RGB image.

    ``entropy`` (bits, 0 to 8), ``brightness`` and ``contrast`` (mean and standard deviation of grey
    levels, 0 to 255) and ``flat`` (share of the commonest grey level) are those of the whole image's
    luma. ``blur`` (variance of the Laplacian; small is blurred, Pech-Pacheco et al. 2000),
    ``colourfulness`` (Hasler & Süsstrunk 2003, eq. 18 to 20 for RGB) and ``grey_share`` (share of pixels
    whose channels differ by no more than the tolerance) are measured with the longer side scaled to
    ``size``, so that one threshold does for all sizes.
    """
    counts = image.convert("L").histogram()
    pixels = image.width * image.height
    total = sum(level * count for level, count in enumerate(counts))
    squares = sum(level * level * count for level, count in enumerate(counts))
    small = scaled(image, size)
    channels = [np.asarray(channel) for channel in small.split()]
    spread = functools.reduce(np.maximum, channels) - functools.reduce(np.minimum, channels)
    return {
        "blur": laplacian_variance(np.asarray(small.convert("L"))),
        "entropy": math.log2(pixels) - math.fsum(c * math.log2(c) for c in counts if c) / pixels,
        "brightness": total / pixels,
        "contrast": math.sqrt(squares * pixels - total * total) / pixels,
        "flat": max(counts) / pixels,
        "colourfulness": colourfulness(*channels),
        "grey_share": float((spread <= tolerance).mean()),
    }


def scaled(image: Image.Image, size: int) -> Image.Image:
    """The image with a longer side of ``size`` pixels, larger or smaller, no side below 1."""
    factor = size / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def laplacian_variance(grey: Channel) -> float:
    """Variance of the 4-neighbour Laplacian of grey levels (height, width), mirrored at the edges.

    The same as ``cv2.Laplacian(grey, cv2.CV_64F).var()``. Integers until the end, hence exact.
    """
    padded = np.pad(grey, 1, mode="reflect").astype(np.int16)
    centre = padded[1:-1, 1:-1]
    edges = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * centre
    return _moments(edges)[1]


def colourfulness(red: Channel, green: Channel, blue: Channel) -> float:
    """Hasler and Süsstrunk's M of an image's channels (height, width); 0 for grey, 109 is extreme."""
    r, g, b = (channel.astype(np.int16) for channel in (red, green, blue))
    mean_rg, variance_rg = _moments(r - g)
    mean_yb, variance_yb = _moments(r + g - 2 * b)
    deviation = np.sqrt(variance_rg + variance_yb / 4)
    return float(deviation + 0.3 * np.hypot(mean_rg, mean_yb / 2))


def _moments(values: npt.NDArray[np.int16]) -> tuple[float, float]:
    """Mean and variance from sums of integers, which float64 holds exactly in whatever order."""
    wide, count = values.ravel().astype(np.float64), values.size
    total, squares = int(wide.sum()), int(np.square(wide).sum())
    return total / count, (squares * count - total * total) / (count * count)
