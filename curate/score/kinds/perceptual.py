"""``type: perceptual``: numbers of which few bits differ where two images look alike.

pHash and dHash are bit for bit those of the package imagehash 4.3, on the image as RGB; PDQ is that of
the reference implementation in C++ (ThreatExchange), fed like the package pdqhash 0.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from curate.config.scorers.perceptual import PerceptualScorer
from curate.score.contract import Columns, ImageScores, PixelScorer, Shard

Floats = npt.NDArray[np.float32]

TYPES = pa.schema({"dhash": pa.uint64(), "phash": pa.uint64(), "pdq": pa.string(), "pdq_quality": pa.int8()})
PDQ_MIN_SIDE = 5
"""Below it PDQ has no bits and quality 0."""


class Perceptual(PixelScorer[PerceptualScorer]):
    """Hashes of every image."""

    def __init__(self, name: str, settings: PerceptualScorer) -> None:
        super().__init__(name, settings)
        made = {*settings.hashes, *(["pdq_quality"] if "pdq" in settings.hashes else ())}
        self.outputs = pa.schema([field for field in TYPES if field.name in made])

    @property
    def facts(self) -> dict[str, Any]:
        """Which hashes, whatever their order."""
        return {"hashes": sorted(set(self.settings.hashes))}

    def start(self, shard: Shard) -> ImageScores:
        """Hash every image as it comes."""
        return _Hashes(len(shard), set(self.settings.hashes))


class _Hashes:
    def __init__(self, rows: int, hashes: set[str]) -> None:
        self.hashes = hashes
        self.missing = np.ones(rows, bool)
        self.bits = {name: np.zeros(rows, np.uint64) for name in sorted(hashes - {"pdq"})}
        self.pdq: list[str | None] = [None] * rows if "pdq" in hashes else []
        self.quality = np.zeros(rows if "pdq" in hashes else 0, np.int8)

    def add(self, row: int, image: Image.Image) -> None:
        self.missing[row] = False
        grey = image.convert("L")
        if "phash" in self.hashes:
            self.bits["phash"][row] = phash(grey)
        if "dhash" in self.hashes:
            self.bits["dhash"][row] = dhash(grey)
        if "pdq" in self.hashes:
            self.pdq[row], self.quality[row] = pdq(np.asarray(image))

    def columns(self) -> Columns:
        columns: dict[str, pa.Array] = {}
        for name, bits in self.bits.items():
            columns[name] = pa.array(bits, mask=self.missing)
        if "pdq" in self.hashes:
            columns["pdq"] = pa.array(self.pdq, pa.string())
            columns["pdq_quality"] = pa.array(self.quality, mask=self.missing)
        return columns


def phash(grey: Image.Image) -> int:
    """64-bit pHash of a greyscale image (mode L): the low frequencies of 32×32 pixels over their median.

    The first bit (row 0, column 0) is the most significant one, as in imagehash's hexadecimal text.
    """
    from scipy.fft import dct

    pixels = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = dct(dct(pixels, axis=0), axis=1)[:8, :8]
    return _number(low > np.median(low))


def dhash(grey: Image.Image) -> int:
    """64-bit dHash of a greyscale image (mode L): is a pixel of 8 rows of 9 brighter than its left one."""
    pixels = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS))
    return _number(pixels[:, 1:] > pixels[:, :-1])


def pdq(rgb: npt.NDArray[np.uint8]) -> tuple[str, int]:
    """PDQ of an image (height, width, 3): 256 bits as 64 hexadecimal digits, and the quality, 0 to 100.

    Meta recommends to leave out what has a quality below 50, and to take two images for one up to 31
    differing bits. Exact to the last float32 addition, since one of them can turn a bit.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < PDQ_MIN_SIDE:
        return "0" * 64, 0
    wide = rgb.astype(np.float64)
    luma = (wide[..., 0] * 0.299 + wide[..., 1] * 0.587 + wide[..., 2] * 0.114).astype(np.float32)
    small = luma if luma.shape == (64, 64) else _shrunk(luma)
    frequencies = _low_frequencies(small)
    median = np.partition(frequencies, 127, axis=None)[127]
    bits = (frequencies > median).reshape(-1)
    return np.packbits(bits[::-1]).tobytes().hex(), _quality(small)


def _number(bits: npt.NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _shrunk(luma: Floats) -> Floats:
    """Two tent-like blurs, then the centre pixel of each of 64×64 cells."""
    height, width = luma.shape
    for _ in range(2):
        luma = np.ascontiguousarray(_box(np.ascontiguousarray(luma.T), _window(width)).T)
        luma = _box(luma, _window(height))
    rows, columns = ((np.arange(64) + 0.5) * side / 64 for side in (height, width))
    return np.asarray(luma[np.ix_(rows.astype(np.int64), columns.astype(np.int64))])


def _window(side: int) -> int:
    return (side + 127) // 128


def _box(values: Floats, window: int) -> Floats:
    """Mean of a window along axis 0, which is cut off at both ends.

    One running sum, for all columns at once: add ahead, subtract behind, as the reference does. Sums of
    another order would be rounded differently.
    """
    rows = len(values)
    ahead = (window + 2) // 2 - 1
    out = np.empty_like(values)
    total = np.zeros_like(values[0])
    for right in range(rows + ahead):
        if right < rows:
            np.add(total, values[right], out=total)
        if right >= window:
            np.subtract(total, values[right - window], out=total)
        if right >= ahead:
            size = min(right + 1, rows) - max(0, right + 1 - window)
            np.divide(total, np.float32(size), out=out[right - ahead])
    return out


def _matrix() -> Floats:
    """Rows 1 to 16 of a DCT of 64 points, (16, 64)."""
    rows, columns = np.arange(16)[:, None], np.arange(64)[None, :]
    scale = np.float64(np.float32(np.sqrt(2.0 / 64.0)))
    return np.asarray(scale * np.cos((np.pi / 2.0 / 64.0) * (rows + 1) * (2 * columns + 1)), np.float32)


_DCT = _matrix()


def _low_frequencies(small: Floats) -> Floats:
    """D A Dᵀ of 64×64 pixels, (16, 16), summed one by one as the reference does."""
    half = np.zeros((16, 64), np.float32)
    for k in range(64):
        half += _DCT[:, k, None] * small[None, k]
    out = np.zeros((16, 16), np.float32)
    for k in range(64):
        out += half[:, k, None] * _DCT[None, :, k]
    return out


def _quality(small: Floats) -> int:
    """How much there is to hash: differences of neighbouring pixels, rounded down to hundredths."""
    total = 0
    for step in (small[:-1] - small[1:], small[:, :-1] - small[:, 1:]):
        total += int(np.abs(np.trunc(step * np.float32(100) / np.float32(255))).sum(dtype=np.int64))
    return min(total // 90, 100)
