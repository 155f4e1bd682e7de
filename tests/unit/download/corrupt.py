"""Small pictures in many formats, damaged copies of them, and what Pillow alone makes of each."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from curate.demo.world import World
from curate.download.decode import FORMATS
from curate.download.limits import ImageError, Limits
from curate.download.reasons import classify
from curate.download.resize import with_decoded
from curate.download.rgb import Pixels
from curate.reasons import DownloadReason

Variants = Mapping[str, tuple[str, str, dict[str, Any]]]

VARIANTS: Variants = {
    "png": ("PNG", "RGB", {}),
    "png alpha": ("PNG", "RGBA", {"exif": b"turned"}),
    "png palette": ("PNG", "P", {}),
    "png grey 16": ("PNG", "I;16", {}),
    "apng": ("PNG", "RGB", {"save_all": True}),
    "jpeg": ("JPEG", "RGB", {}),
    "jpeg progressive": ("JPEG", "RGB", {"progressive": True, "exif": b"turned"}),
    "jpeg cmyk": ("JPEG", "CMYK", {"quality": 90}),
    "jpeg grey restart": ("JPEG", "L", {"restart_marker_rows": 1}),
    "webp": ("WEBP", "RGB", {}),
    "webp lossless": ("WEBP", "RGBA", {"lossless": True}),
    "webp animated": ("WEBP", "RGB", {"save_all": True, "exif": b"turned"}),
    "gif": ("GIF", "P", {}),
    "gif animated": ("GIF", "P", {"save_all": True, "transparency": 3}),
    "tiff": ("TIFF", "RGB", {"exif": b"turned"}),
    "tiff lzw": ("TIFF", "RGBA", {"compression": "tiff_lzw"}),
    "tiff jpeg": ("TIFF", "RGB", {"compression": "jpeg"}),
    "tiff deflate": ("TIFF", "CMYK", {"compression": "tiff_adobe_deflate", "save_all": True}),
    "avif": ("AVIF", "RGB", {"speed": 10}),
    "avif alpha": ("AVIF", "RGBA", {"speed": 10, "exif": b"turned"}),
}
"""Name → format, mode, options of ``save``. All frames of ``save_all`` but the first are mirrored."""


@dataclass(frozen=True)
class Verdict:
    """The outcome for one body. ``pixels`` are None where it is refused, or its mode has no reference."""

    accepted: bool
    words: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    fmt: str = ""
    pixels: Pixels | None = None


def photographs(folder: Path, side: int) -> list[Image.Image]:
    """The JPEGs below a folder, made small."""
    found = []
    for path in sorted(folder.rglob("*.jpg")):
        if "corrupt" in path.name:
            continue
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        rgb.thumbnail((side, side))
        if min(rgb.size) > 16:
            found.append(rgb)
    return found


def drawings(world: World, count: int, side: int) -> list[Image.Image]:
    """Pictures of the demo world, made small."""
    found: list[Image.Image] = []
    for resource in world.resources:
        if resource.http_kind == "ok" and len(found) < count:
            image = Image.open(io.BytesIO(world.image_bytes(resource.url))).convert("RGB")
            image.thumbnail((side, side))
            found.append(image)
    return found


def saved(
    image: Image.Image, variant: str, orientation: int = 6, others: Mapping[str, Any] | None = None
) -> bytes:
    """An RGB image in one of `VARIANTS`, or with other options."""
    fmt, mode, options = VARIANTS[variant]
    options = dict(options if others is None else others)
    if "exif" in options:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    if options.get("save_all"):
        options["append_images"] = [in_mode(ImageOps.mirror(image), mode)]
    stream = io.BytesIO()
    in_mode(image, mode).save(stream, fmt, **options)
    return stream.getvalue()


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An RGB image in another mode; with alpha, the darker the more transparent."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "RGBA":
        image = image.copy()
        image.putalpha(image.convert("L"))
        return image
    return image.quantize(64) if mode == "P" else image.convert(mode)


def damaged(body: bytes, rng: random.Random) -> bytes:
    """One of: a few flipped bits, a cut, two blocks swapped, a block gone."""
    data = bytearray(body)
    kind = rng.randrange(4)
    if kind == 0:
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[rng.randrange(len(data)) :]
    else:
        size = rng.randint(1, 64)
        at, other = (rng.randrange(len(data)) for _ in range(2))
        if kind == 2:
            data[at : at + size], data[other : other + size] = (
                data[other : other + size],
                data[at : at + size],
            )
        else:
            del data[at : at + size]
    return bytes(data)


def copies(images: Sequence[Image.Image], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many damaged copies, all variants in turn."""
    rng = random.Random(seed)
    made: dict[tuple[str, int], bytes] = {}
    for i in range(count):
        variant = list(VARIANTS)[i % len(VARIANTS)]
        which = rng.randrange(len(images))
        if (variant, which) not in made:
            made[variant, which] = saved(images[which], variant)
        yield variant, damaged(made[variant, which], rng)


def by_pillow(body: bytes) -> Verdict:
    """Pillow's plain ``load()``, and from it the upright pixels on white."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(body))
            size = image.size
            image.load()
    except Exception as error:  # noqa: BLE001 - whatever Pillow raises
        return Verdict(False, f"{type(error).__name__}: {error}")
    return Verdict(True, "", size, image.mode, image.format or "", reference(image))


def reference(image: Image.Image) -> Pixels | None:
    """Upright pixels of a loaded image, blue first; None for modes whose range is a matter of taste."""
    if image.mode in ("I", "F", "LAB"):
        return None
    with contextlib.suppress(Exception):  # a broken EXIF block is no EXIF block
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode not in ("RGB", "L", "1", "CMYK", "YCbCr") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))[:, :, ::-1]


def by_us(body: bytes, limits: Limits) -> Verdict:
    """What the download stage makes of it, before the resize."""
    try:
        return with_decoded(
            body, limits, lambda d: Verdict(True, d.damage, (d.width, d.height), pixels=d.pixels)
        )
    except ImageError as error:
        return Verdict(False, str(error))


def difference(body: bytes, limits: Limits) -> str:
    """In what our outcome differs from Pillow's; empty when it does not.

    ``limits`` are such that nothing is made smaller or kept as it is.
    """
    theirs, ours = by_pillow(body), by_us(body, limits)
    if ours.accepted:
        if not theirs.accepted:
            return f"accepted; Pillow: {theirs.words}"
        if theirs.pixels is not None and not np.array_equal(theirs.pixels, ours.pixels):
            return f"other pixels ({theirs.fmt} {theirs.mode})"
        return ""
    reason = classify(ours.words)
    if not theirs.accepted:
        return "" if reason in (DownloadReason.DECODE_ERROR, DownloadReason.TOO_MANY_PIXELS) else ours.words
    if theirs.fmt not in (*FORMATS, "MPO"):
        return "" if reason is DownloadReason.DECODE_ERROR else ours.words
    too_large = theirs.size[0] * theirs.size[1] > limits.max_pixels
    return "" if too_large and reason is DownloadReason.TOO_MANY_PIXELS else f"refused: {ours.words}"
