"""Small pictures for a page, as data URLs."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable

from PIL import Image, ImageOps

from curate.dataset import layout
from curate.dataset.tars import images_of
from curate.dataset.workspace import Workspace
from curate.errors import DataError

STORED = ("JPEG", "PNG", "WEBP")
"""Formats that a dataset stores its images in."""

SIDE = 192
"""Pixels of the longer side, unless told otherwise."""


def thumbnail(image: bytes, side: int = SIDE) -> str | None:
    """A WebP of at most ``side`` by ``side`` pixels as a data URL; None when it cannot be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = _load(image, side)
        if loaded is None:
            return None
        transparent = "A" in loaded.getbands() or "transparency" in loaded.info
        small = loaded.convert("RGBA" if transparent else "RGB")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, "WEBP", quality=74, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _load(image: bytes, side: int) -> Image.Image | None:
    """An image upright, a JPEG perhaps smaller than it is; None for what Pillow refuses to load."""
    try:
        picture = Image.open(io.BytesIO(image), formats=STORED)
        picture.draft("RGB", (side, side))
        picture.load()
    except Exception:  # noqa: BLE001 - what Pillow raises for a broken image has no common base
        return None
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - a broken EXIF block is no EXIF block
        return picture


def thumbnails(workspace: Workspace, shard: str, uids: Iterable[str], side: int = SIDE) -> dict[str, str]:
    """uid → data URL of those samples of a shard whose picture can be read."""
    path = layout.image_tar(shard)
    found: dict[str, str] = {}
    try:
        with workspace.open(path) as stream:
            for uid, _, image in images_of(stream, sorted(set(uids)), f"{workspace.url}/{path}"):
                if url := thumbnail(image, side):
                    found[uid] = url
    except (DataError, OSError):
        pass  # a page shows what there is; whoever reads this tar for a purpose says what is wrong
    return found
