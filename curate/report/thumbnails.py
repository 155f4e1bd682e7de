"""Small pictures for the page, as data URLs."""

from __future__ import annotations

import base64
import io
import warnings

from PIL import Image, ImageOps

from curate.dataset import layout
from curate.dataset.tars import images_of
from curate.dataset.workspace import Workspace
from curate.errors import DataError

SIDE = 192


def thumbnail(image: bytes) -> str | None:
    """A WebP of at most 192 by 192 pixels as a data URL; None when the image cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(image)) as picture:
                picture.draft("RGB", (SIDE, SIDE))
                upright = ImageOps.exif_transpose(picture)
                small = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
                small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                out = io.BytesIO()
                small.save(out, "WEBP", quality=74, method=4)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def thumbnails(workspace: Workspace, shard: str, uids: list[str]) -> dict[str, str]:
    """uid → data URL of those samples of a shard whose picture can be read."""
    path = layout.image_tar(shard)
    found = {}
    try:
        with workspace.open(path) as stream:
            for uid, _, image in images_of(stream, sorted(set(uids)), f"{workspace.url}/{path}"):
                url = thumbnail(image)
                if url is not None:
                    found[uid] = url
    except DataError:
        pass  # a report shows what there is; the stage that reads this shard next will say what is wrong
    return found
