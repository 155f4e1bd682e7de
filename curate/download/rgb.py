"""From any of Pillow's modes to the pixels that the resizer takes."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Pixels = npt.NDArray[np.uint8]
"""An upright image as OpenCV has it: uint8, shape (height, width, 3), blue first."""

WHOLE_PIXELS = 1 << 21
"""Up to so many pixels are converted in one piece. A conversion holds up to four copies, 22 bytes per pixel;
even from RGB, Pillow joins the rows of ``tobytes`` in a second copy."""

PART_PIXELS = 1 << 18
"""Pixels converted at a time of larger images."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what makes the image upright."""


def upright_bgr(image: Image.Image, orientation: int) -> Pixels:
    """A loaded image as upright pixels; transparency is laid on white.

    Large images are converted in parts, so that beside the image and the result only a few MB are held.

    Args:
        image: any mode that Pillow decodes to.
        orientation: EXIF's, 1 to 8.
    """
    width, height = image.size
    step = UPRIGHT.get(orientation)
    top = _top(image)
    if width * height <= WHOLE_PIXELS:
        rgb = _to_rgb(image, top)
        return bgr_pixels(rgb if step is None else rgb.transpose(step))
    sideways = orientation >= 5
    out = np.empty((width, height, 3) if sideways else (height, width, 3), np.uint8)
    for left, upper, right, lower in _parts(image):
        rgb = _to_rgb(image.crop((left, upper, right, lower)), top)
        columns = slice(width - right, width - left) if orientation in (2, 3, 7, 8) else slice(left, right)
        rows = slice(height - lower, height - upper) if orientation in (3, 4, 6, 7) else slice(upper, lower)
        place = (columns, rows) if sideways else (rows, columns)
        out[place] = bgr_pixels(rgb if step is None else rgb.transpose(step))
    return out


def bgr_pixels(image: Image.Image) -> Pixels:
    """An RGB image as OpenCV has it; read-only."""
    raw = image.tobytes("raw", "BGR")
    return np.frombuffer(raw, np.uint8).reshape(image.height, image.width, 3)


def _parts(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of at most `PART_PIXELS`: rows, or pieces of rows that are longer."""
    columns = min(image.width, PART_PIXELS)
    rows = PART_PIXELS // columns
    for upper in range(0, image.height, rows):
        for left in range(0, image.width, columns):
            yield left, upper, min(left + columns, image.width), min(upper + rows, image.height)


def _to_rgb(image: Image.Image, top: float) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _grey(image, top).convert("RGB")
    if image.mode == "LAB":
        return _from_lab(image)
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        coloured = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _top(image: Image.Image) -> float:
    """The largest finite value of a mode without a fixed range, at least 0."""
    if image.mode not in ("I", "F"):
        return 0.0
    rows = max(1, PART_PIXELS // image.width)
    bands = (
        image.crop((0, y, image.width, min(y + rows, image.height))) for y in range(0, image.height, rows)
    )
    return max(float(_floats(band).max(initial=0.0)) for band in bands)


def _grey(image: Image.Image, top: float) -> Image.Image:
    """Integers and floats as 8-bit grey, by the range that their largest value suggests."""
    if image.mode == "F" and top <= 1.0:
        scale = 255.0
    elif top <= 255:
        scale = 1.0
    else:
        scale = 255.0 / (65_535.0 if top <= 65_535 else top)
    return Image.fromarray(np.clip(_floats(image) * scale + 0.5, 0, 255).astype(np.uint8))


def _floats(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _from_lab(image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, _lab_to_srgb())
    assert converted is not None
    return converted


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
