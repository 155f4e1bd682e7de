"""A body to upright 8-bit pixels, with everything that can be wrong checked on the header first.

img2dataset decodes with OpenCV's IMREAD_UNCHANGED: it ignores EXIF orientation, saturates 16-bit PNGs
to white, keeps grey images at one channel, gives back half of a truncated JPEG as a success, and has
no limit on pixels. So Pillow decodes, and the engine gets pixels that it cannot get wrong.

What Pillow's plain ``load()`` refuses is refused here. For that, nothing is asked of an image between
opening and loading but its size and mode: ``getexif()`` of a PNG decodes it, a second ``load()`` after
a failed one succeeds, and a TIFF's orientation is gone once it is loaded.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image

from curate.clip.images import FORMATS
from curate.download import reasons
from curate.download.exif import exif_json
from curate.download.limits import ImageError, Limits, decoding_bytes, decoding_error, drafted
from curate.download.rgb import Pixels, upright_bgr

MAX_SCANS = 100
"""Scans of a progressive JPEG: real encoders write about ten; each costs a pass over all pixels."""

_ORIENTATION = 0x0112
_PNG_DEPTH = 24
"""Where the IHDR chunk, which comes first, has the bit depth."""
_STORED_AS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}

# Pillow warns about every odd tag of every image of a crawl, and has a limit on pixels beside ours.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Header:
    """An image that is opened, judged by its size, and not loaded yet."""

    image: Image.Image
    size: tuple[int, int]
    """(width, height) as stored, before any turning."""
    needed: int
    """Bytes that decoding will take."""
    deep: bool
    """A PNG of 16 bits per channel, of which Pillow decodes the upper 8."""


@dataclass(frozen=True)
class Decoded:
    """What decoding gives. Sizes are those of the upright original."""

    pixels: Pixels | None
    """None where the stored file may be the downloaded bytes, of which this was the proof."""
    width: int
    height: int
    exif: str | None
    """JSON, see `curate.download.exif`."""
    damage: str = ""
    """What Pillow's plain ``load()`` said of an image that is kept though truncated."""


def read_header(body: bytes, limits: Limits, scans: int | None = None) -> Header:
    """Open an image, hold it against the limits, and choose the size it is decoded at.

    A JPEG may be decoded at 1/2, 1/4 or 1/8, see `Limits.draft_size`.

    Args:
        body: the file.
        limits: on its size, and what it will be resized to.
        scans: of a JPEG, when they have been counted.

    Raises:
        ImageError: no known format, a broken header, or a size outside the limits.
        MemoryError: there is less than was counted on; not the image's fault, unless the sandbox says so.
    """
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(reasons.MANY_PIXELS) from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on bad bytes
        raise decoding_error(error) from None
    size = image.size
    limits.check_size(*size)
    fmt = image.format or ""
    smaller = size
    if fmt in ("JPEG", "MPO"):
        scans = body.count(b"\xff\xda") if scans is None else scans
        if scans > MAX_SCANS:
            raise ImageError(f"{reasons.DECODING}: more than {MAX_SCANS} scans")
        least = limits.draft_size(*size)
        if least is not None:
            image.draft("RGB", least)
            smaller = drafted(size, least)
        if image.info.get("progressive"):
            scans = max(scans, 2)
    needed = decoding_bytes(fmt, image.mode, size, smaller, scans or 1, limits.enlarged_pixels(*size))
    limits.check_memory(needed)
    return Header(image, size, needed, deep=fmt == "PNG" and body[_PNG_DEPTH] == 16)


def load(header: Header, limits: Limits) -> Decoded:
    """Decode to upright 8-bit pixels; of several frames the first is taken.

    Raises:
        ImageError: Pillow refuses to load it.
        MemoryError: as from `read_header`.
    """
    image = header.image
    try:
        _load(image)
        orientation = _orientation(image)
        width, height = header.size if orientation < 5 else header.size[::-1]
        kept = orientation == 1 and _can_keep(header, limits)
        pixels = None if kept else upright_bgr(image, orientation)
        return Decoded(pixels, width, height, _exif(image))
    finally:
        image.close()


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(reasons.MANY_PIXELS) from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on bad bytes
        raise decoding_error(error) from None


def _can_keep(header: Header, limits: Limits) -> bool:
    """Whether the stored file may be the downloaded bytes: right format, size, depth, one opaque frame."""
    image = header.image
    return (
        limits.skip_reencode
        and image.format == _STORED_AS[limits.encode_format]
        and image.mode == "RGB"
        and "transparency" not in image.info
        and not bool(getattr(image, "is_animated", False))
        and not header.deep
        and not limits.is_resized(*header.size)
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, of a loaded image; a TIFF has been turned by then and says 1."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block is no EXIF block
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _exif(image: Image.Image) -> str | None:
    """The tags of a loaded image as JSON; not those of a TIFF, which are the structure of the file itself."""
    block = image.info.get("exif")
    if isinstance(block, bytes):
        return exif_json(block)
    return None if image.format == "TIFF" else "{}"
