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

SIDE = 192
"""Pixels of the longer side, unless told otherwise."""


def thumbnail(image: bytes, side: int = SIDE) -> str | None:
    """A WebP of at most ``side`` by ``side`` pixels as a data URL; None when it cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(image)) as picture:
                picture.draft("RGB", (side, side))
                upright = ImageOps.exif_transpose(picture)
                small = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
                small.thumbnail((side, side), Image.Resampling.LANCZOS)
                out = io.BytesIO()
                small.save(out, "WEBP", quality=74, method=4)
    except Exception:  # noqa: BLE001 - what Pillow raises for a broken image has no common base
        return None
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


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
