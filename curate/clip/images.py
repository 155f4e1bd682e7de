"""Bytes of an image to what a model's transform takes."""

from __future__ import annotations

import io

from PIL import Image


def decode(data: bytes) -> Image.Image:
    """Bytes → RGB, as training pipelines read them: to RGB before any resize, no EXIF rotation.

    16-bit greyscale keeps its high byte; Pillow's own conversion would turn most of it white.
    Raises whatever Pillow raises for what is no image.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I;16"):
            return image.point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
        return image.convert("RGB")
