"""A body to upright 8-bit RGB pixels, with everything that can be wrong checked on the header first.

The engine decodes with OpenCV's IMREAD_UNCHANGED: it ignores EXIF orientation, saturates 16-bit PNGs
to white, keeps grey images at one channel, gives back half of a truncated JPEG as a success, and has
no limit on pixels. So Pillow decodes, and the engine gets pixels that it cannot get wrong.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from curate.config.models import DownloadSettings
from curate.download import reasons
from curate.download.reasons import tidy

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""What the engine's decoder reads. Of the others that Pillow knows, some start programs (EPS)."""

MAX_SCANS = 100
"""Scans of a progressive JPEG: real encoders write about ten; each costs a pass over all pixels."""

OVERSAMPLING = 2
"""A JPEG may be decoded at 1/2, 1/4 or 1/8, but not below this multiple of the size it is resized to."""

_ORIENTATION = 0x0112
_PNG_DEPTH = 24
"""Where the IHDR chunk, which comes first, has the bit depth."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STORED_AS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}

# Pillow warns about every odd tag of every image of a crawl, and has a limit on pixels beside ours.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class ImageError(Exception):
    """An image that cannot be used; its text is a line of the table's vocabulary."""


@dataclass(frozen=True)
class Header:
    """What an image says of itself, before its pixels are decoded."""

    image: Image.Image
    """Opened, not loaded."""
    width: int
    """Upright, pixels."""
    height: int
    orientation: int
    """EXIF orientation, 1 to 8."""
    exif: bytes | None
    """The EXIF block (TIFF structure), when there is one."""
    format: str
    deep: bool
    """16 bits per channel, of which Pillow decodes the upper 8."""

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def read_header(body: bytes, settings: DownloadSettings) -> Header:
    """Open an image without decoding it and hold it against the limits.

    Raises:
        ImageError: no known format, a broken header, or a size outside the limits.
    """
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
        width, height = image.size
        fmt = image.format or ""
        if fmt in ("JPEG", "MPO") and body.count(b"\xff\xda") > MAX_SCANS:
            raise ImageError(f"{reasons.DECODING}: more than {MAX_SCANS} scans")
        orientation = _orientation(image)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(reasons.MANY_PIXELS) from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on bad bytes
        raise decoding_error(error) from None
    exif = image.info.get("exif")
    if orientation >= 5:
        width, height = height, width
    header = Header(
        image=image,
        width=width,
        height=height,
        orientation=orientation,
        exif=exif if isinstance(exif, bytes) else None,
        format=fmt,
        deep=fmt == "PNG" and body[_PNG_DEPTH] == 16,
    )
    if width < 1 or height < 1:
        raise ImageError(f"{reasons.DECODING}: no pixels")
    _check_limits(header, settings)
    return header


def _check_limits(header: Header, settings: DownloadSettings) -> None:
    """The engine's checks, in its order and its words."""
    short, long = sorted((header.width, header.height))
    if short < settings.min_image_size:
        raise ImageError(reasons.TOO_SMALL)
    if header.pixels > settings.max_pixels or enlarged_pixels(header, settings) > settings.max_pixels:
        raise ImageError(reasons.MANY_PIXELS)
    if settings.max_aspect_ratio is not None and long / short > settings.max_aspect_ratio:
        raise ImageError(reasons.ASPECT_RATIO)


def target_factor(header: Header, settings: DownloadSettings) -> float:
    """By how much the engine scales an image; 1 when it keeps its size."""
    if settings.resize_mode == "no":
        return 1.0
    sides = (header.width, header.height)
    side = min(sides) if settings.resize_mode in ("keep_ratio", "center_crop") else max(sides)
    factor = settings.image_size / side
    return 1.0 if factor > 1 and settings.resize_only_if_bigger else factor


def is_resized(header: Header, settings: DownloadSettings) -> bool:
    """Whether the engine changes the size: by scaling, by cropping or by a border."""
    if target_factor(header, settings) != 1.0:
        return True
    if settings.resize_mode in ("center_crop", "border") and not settings.resize_only_if_bigger:
        return header.width != header.height
    return False


def enlarged_pixels(header: Header, settings: DownloadSettings) -> float:
    """Pixels after scaling: a strip of one pixel height enlarged to 256 is 65,536 times as large."""
    return header.pixels * target_factor(header, settings) ** 2


def can_keep(header: Header, settings: DownloadSettings) -> bool:
    """Whether the stored file may be the downloaded bytes: right format, size, orientation, depth."""
    image = header.image
    return (
        settings.skip_reencode
        and header.format == _STORED_AS[settings.encode_format]
        and header.orientation == 1
        and image.mode == "RGB"
        and "transparency" not in image.info
        and not bool(getattr(image, "is_animated", False))
        and not header.deep
        and not is_resized(header, settings)
    )


def _scaled(size: tuple[int, int], settings: DownloadSettings) -> tuple[int, int]:
    """The size that the engine scales to: sides rounded one by one."""
    side = min(size) if settings.resize_mode in ("keep_ratio", "center_crop") else max(size)
    width, height = (max(1, round(s * settings.image_size / side)) for s in size)
    return width, height


def _reduced(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """The size at which Pillow's ``draft`` decodes a JPEG that is wanted at least so large."""
    most = min(size[0] // width, size[1] // height)
    step = next((step for step in (8, 4, 2) if most >= step), 1)
    return -(-size[0] // step), -(-size[1] // step)


def load_rgb(header: Header, settings: DownloadSettings, whole: bool) -> Image.Image:
    """Decode to upright 8-bit RGB; transparency is laid on white, of several frames the first is taken.

    Args:
        header: of an image not loaded yet.
        settings: for the size it will be resized to and the limit on pixels.
        whole: decode at full size. Else a JPEG may come at 1/2, 1/4 or 1/8 of its size, but not
            below `OVERSAMPLING` times the size that is stored, nor where rounding would then give
            another size.

    Raises:
        ImageError: the pixels do not decode, or are more than the header said.
    """
    image = header.image
    try:
        factor = target_factor(header, settings) * OVERSAMPLING
        if not whole and header.format in ("JPEG", "MPO") and factor < 1:
            width, height = (math.ceil(side * factor) for side in image.size)
            if _scaled(_reduced(image.size, width, height), settings) == _scaled(image.size, settings):
                image.draft("RGB", (width, height))
        image.load()
        if image.width * image.height > settings.max_pixels:
            raise ImageError(reasons.MANY_PIXELS)
        rgb = _to_rgb(image)
        step = _UPRIGHT.get(header.orientation)
        return rgb if step is None else rgb.transpose(step)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(reasons.MANY_PIXELS) from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on bad bytes
        raise decoding_error(error) from None


def decoding_error(error: Exception) -> ImageError:
    """The engine's words for a decoder that failed, with what Pillow said."""
    words = str(error)
    if isinstance(error, UnidentifiedImageError):
        words = "unknown format"
    return ImageError(tidy(f"{reasons.DECODING}: {words or type(error).__name__}"))


def bgr_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """An RGB image as OpenCV has it: uint8, shape (height, width, 3), blue first; read-only."""
    raw = image.tobytes("raw", "BGR")
    return np.frombuffer(raw, np.uint8).reshape(image.height, image.width, 3)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block is no EXIF block
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_grey(image).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        coloured = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """Grey with more than 8 bits as 8-bit grey: 16-bit by its upper byte, others by their range."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((values >> 8).astype(np.uint8))
    floats = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(floats.max(initial=0.0))
    if image.mode == "F" and top <= 1.0:
        scale = 255.0
    elif top <= 255:
        scale = 1.0
    else:
        scale = 255.0 / (65_535.0 if top <= 65_535 else top)
    return Image.fromarray(np.clip(floats * scale + 0.5, 0, 255).astype(np.uint8))
