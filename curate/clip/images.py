"""Bytes of an image to what a model's transform takes."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Formats of photographs on the web. Of the others that Pillow knows, some start programs (EPS), some decode
all they hold before they say how large it is (ICO, ICNS), and some take anything for theirs (TGA)."""


class ImageError(Exception):
    """An image that cannot be decoded, or not be prepared for a model."""


def decode(data: bytes) -> Image.Image:
    """Bytes → RGB, as training pipelines read them: to RGB before any resize, no EXIF rotation.

    16-bit greyscale keeps its high byte; Pillow's own conversion would turn most of it white.

    Raises:
        ImageError: what Pillow refuses to open or to load. A lack of memory is not that.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode.startswith("I;16"):
                return image.point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
            return image.convert("RGB")
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ImageError("unknown format") from None  # Pillow's own words hold an address
    except Exception as error:  # noqa: BLE001 - what Pillow raises for a broken image has no common base
        raise ImageError(str(error) or type(error).__name__) from None
