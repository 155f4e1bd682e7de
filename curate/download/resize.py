"""A body to the file that is stored, with what is told about it."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from curate.config.models import DownloadSettings
from curate.download import engine
from curate.download.decode import (
    Header,
    ImageError,
    bgr_pixels,
    can_keep,
    load_rgb,
    read_header,
)

DECODERS = 2
"""Images decoded at a time in one worker, which has one core: one decodes while one waits for Python."""

PIXELS_IN_FLIGHT = 32_000_000
"""Pixels decoded at a time in one worker; one larger image is decoded alone. About 10 bytes each."""

MAX_EXIF_BLOCK = 1 << 20
MAX_EXIF_VALUE = 256
MAX_EXIF = 16_384
"""Limits on EXIF: bytes read, characters of one value, characters of the JSON. Beyond the last, NULL."""


@dataclass(frozen=True)
class Picture:
    """A stored image. Sizes in pixels; the original's are those of the upright image."""

    data: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    exif: str | None
    sha256: str
    """Of the downloaded bytes."""


class PixelGate:
    """Bounds what is decoded at a time, by images and by pixels."""

    def __init__(self, images: int = DECODERS, pixels: int = PIXELS_IN_FLIGHT) -> None:
        self._images = images
        self._pixels = pixels
        self._inside = 0
        self._sum = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until an image of so many pixels fits, or nothing else is inside."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(pixels))
            self._inside += 1
            self._sum += pixels
            # One thread is woken at a time, and wakes the next: sixty that wake up for one place cost
            # more than the decoding. Whoever leaves last wakes one that fits, so nobody is forgotten.
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._sum -= pixels
                self._changed.notify()

    def _fits(self, pixels: int) -> bool:
        return self._inside == 0 or (self._inside < self._images and self._sum + pixels <= self._pixels)


class Shrinker:
    """Checks, decodes, resizes and encodes. One per shard, shared by its threads."""

    def __init__(self, settings: DownloadSettings) -> None:
        self.settings = settings
        self._resizer = engine.make_resizer(settings)
        self._gate = PixelGate()

    def __call__(self, body: bytes) -> Picture:
        """The stored form of an image.

        Raises:
            ImageError: it does not decode, or its size is outside the limits.
        """
        header = read_header(body, self.settings)
        keep = can_keep(header, self.settings)
        with self._gate.hold(header.pixels):
            image = load_rgb(header, self.settings, whole=keep)
            if keep:
                # Decoding was the proof that these bytes are an image.
                data, width, height = body, *image.size
            else:
                data, width, height = self.resize(image)
        return Picture(
            data=data,
            width=width,
            height=height,
            original_width=header.width,
            original_height=header.height,
            exif=exif_json(header),
            sha256=hashlib.sha256(body).hexdigest(),
        )

    def resize(self, image: Image.Image) -> tuple[bytes, int, int]:
        """An RGB image through the engine: encoded, width, height. Raises ImageError in its words."""
        pixels = bgr_pixels(image)
        image.close()
        data, width, height, words = engine.resize(self._resizer, pixels)
        if data is None:
            raise ImageError(words)
        return data, width, height


def exif_json(header: Header) -> str | None:
    """EXIF tags as the engine stores them: a JSON object of strings, ``{}`` when there are none."""
    block = header.exif
    if block is None:
        return None if header.format == "TIFF" else "{}"
    if len(block) > MAX_EXIF_BLOCK:
        return None
    try:
        import exifread

        tags: dict[str, Any] = exifread.process_file(
            io.BytesIO(block.removeprefix(b"Exif\0\0")), details=False
        )
        values = {str(k): str(v).strip()[:MAX_EXIF_VALUE] for k, v in tags.items() if v is not None}
        text = json.dumps(values)
    except Exception:  # noqa: BLE001 - a broken EXIF block costs the EXIF, not the image
        return None
    return text if len(text) <= MAX_EXIF else None
