"""What is asked of an image before its pixels are decoded: its size, and the memory that decoding takes.

Nothing here imports the settings models: the process of `curate.download.sandbox` stays small.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.download import reasons
from curate.download.reasons import tidy

if TYPE_CHECKING:
    from curate.config.models import DownloadSettings

OVERSAMPLING = 2
"""A JPEG may be decoded at 1/2, 1/4 or 1/8, but not below this multiple of the size it is resized to."""

_OUT = 3
"""Bytes of a pixel that is handed to the resizer: blue, green, red."""

_WHILE_LOADING = {"WEBP": 12.5, "AVIF": 11.0, "JPEG2000": 21.0}
"""Bytes per pixel that a decoder holds beside Pillow's image. Measured as peak resident memory: two canvases,
a working copy and the frame as bytes (WebP); planes, RGB and its copy (AVIF, 8 bits; 11 covers 4:4:4 with
alpha); 32-bit samples and the tile (JPEG 2000)."""


class ImageError(Exception):
    """An image that cannot be used; its text is a line of the vocabulary of `curate.download.reasons`."""


@dataclass(frozen=True)
class Limits:
    """The settings of the download stage that decoding depends on, under the same names."""

    image_size: int
    resize_mode: str
    resize_only_if_bigger: bool
    encode_format: str
    skip_reencode: bool
    min_image_size: int
    max_aspect_ratio: float | None
    max_pixels: int
    truncated: str
    decode_memory: int
    decode_timeout: float

    @classmethod
    def from_settings(cls, settings: DownloadSettings) -> Limits:
        """Pick the fields out of the stage's settings."""
        return cls(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(cls)})

    def check_size(self, width: int, height: int) -> None:
        """Hold the size in a header against the limits, in img2dataset's order and words.

        Raises:
            ImageError: `too_small`, `too_many_pixels` or `aspect_ratio`; no pixels at all is `decode_error`.
        """
        short, long = sorted((width, height))
        if short < 1:
            raise ImageError(f"{reasons.DECODING}: no pixels")
        if short < self.min_image_size:
            raise ImageError(reasons.TOO_SMALL)
        if width * height > self.max_pixels or self.enlarged_pixels(width, height) > self.max_pixels:
            raise ImageError(reasons.MANY_PIXELS)
        if self.max_aspect_ratio is not None and long / short > self.max_aspect_ratio:
            raise ImageError(reasons.ASPECT_RATIO)

    def check_memory(self, needed: int) -> None:
        """Hold `decoding_bytes` against `decode_memory`.

        Raises:
            ImageError: `too_many_pixels`.
        """
        if needed > self.decode_memory:
            raise ImageError(reasons.MUCH_MEMORY)

    def scale(self, width: int, height: int) -> float:
        """By how much the resizer scales an image; 1 when it keeps its size."""
        if self.resize_mode == "no":
            return 1.0
        factor = self.image_size / self._decisive((width, height))
        return 1.0 if factor > 1 and self.resize_only_if_bigger else factor

    def is_resized(self, width: int, height: int) -> bool:
        """Whether the resizer changes the size: by scaling, by cropping or by a border."""
        if self.scale(width, height) != 1.0:
            return True
        if self.resize_mode in ("center_crop", "border") and not self.resize_only_if_bigger:
            return width != height
        return False

    def enlarged_pixels(self, width: int, height: int) -> float:
        """Pixels after scaling: a strip of one pixel height enlarged to 256 is 65,536 times as large."""
        return width * height * self.scale(width, height) ** 2

    def draft_size(self, width: int, height: int) -> tuple[int, int] | None:
        """What to ask of Pillow's ``draft`` for a JPEG of this size: the least (width, height) to decode at.

        None where it has to be decoded whole: it is not made smaller by `OVERSAMPLING`, or rounding would
        give another size than the whole image would get.
        """
        factor = self.scale(width, height) * OVERSAMPLING
        if factor >= 1:
            return None
        size = (math.ceil(width * factor), math.ceil(height * factor))
        if self._scaled(drafted((width, height), size)) != self._scaled((width, height)):
            return None
        return size

    def _decisive(self, size: tuple[int, int]) -> int:
        """The side that becomes `image_size`."""
        return min(size) if self.resize_mode in ("keep_ratio", "center_crop") else max(size)

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size that the resizer scales to: sides rounded one by one."""
        side = self._decisive(size)
        width, height = (max(1, round(s * self.image_size / side)) for s in size)
        return width, height


def drafted(size: tuple[int, int], least: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) at which Pillow's ``draft`` decodes a JPEG that is wanted at least so large."""
    most = min(size[0] // least[0], size[1] // least[1])
    step = next((step for step in (8, 4, 2) if most >= step), 1)
    return -(-size[0] // step), -(-size[1] // step)


def decoding_bytes(
    fmt: str, mode: str, size: tuple[int, int], drafted_size: tuple[int, int], scans: int, enlarged: float
) -> int:
    """Memory that an image takes from its first decoded byte until it is resized.

    Counted are Pillow's image, what the decoder holds beside it, the array that is handed on (twice, while it
    comes from the sandbox), and the resized array where that is the larger one. Not counted: the body, and a
    few MB for parts that are converted.

    Args:
        fmt: Pillow's name of the format.
        mode: Pillow's mode.
        size: (width, height) in the header.
        drafted_size: (width, height) it is decoded at; the same unless it is a JPEG.
        scans: of a JPEG; with more than one, its coefficients are held.
        enlarged: pixels after resizing.
    """
    pixels, decoded = math.prod(size), math.prod(drafted_size)
    core = 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4
    beside = _WHILE_LOADING.get(fmt, 0.0) * pixels
    if scans > 1:
        bands = {"L": 1, "CMYK": 4}.get(mode, 3)
        beside = 2.0 * bands * pixels
    if fmt == "TIFF":
        beside = float(core) * pixels  # turned upright by Pillow's plugin
    loaded = max(core * decoded + max(beside, _OUT * decoded), 2 * _OUT * decoded)
    return int(loaded + _OUT * max(0.0, enlarged - decoded))


def decoding_error(error: BaseException) -> ImageError:
    """What to raise for a decoder that failed: img2dataset's words, and what Pillow said."""
    words = str(error) or type(error).__name__
    if type(error).__name__ == "UnidentifiedImageError":
        words = "unknown format"  # Pillow's own words hold an address
    return ImageError(tidy(f"{reasons.DECODING}: {words}"))


def is_decoding_error(error: ImageError) -> bool:
    """Whether a decoder refused it, and not one of the limits."""
    return str(error).startswith(reasons.DECODING)
