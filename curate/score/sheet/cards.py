"""Caption, host and picture of the samples that are shown."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from PIL import Image, ImageOps

from curate.dataset import layout
from curate.dataset.samples import base_family, columns_of, read_samples
from curate.dataset.tars import images_of
from curate.dataset.workspace import Workspace
from curate.errors import DataError

SIDE = 168
"""Pixels of the longer side of a thumbnail."""
TEXT = 240
"""Characters of a caption that are shown."""

Place = tuple[int, int]
"""Number of the shard, number of the sample in it."""


@dataclass(frozen=True)
class Card:
    """A sample. All strings are as found on the web and have to be escaped.

    Attributes:
        picture: data URL, or None when there is no readable picture.
    """

    uid: str
    text: str
    host: str
    picture: str | None


def cards(
    workspace: Workspace, scorer: str, shards: Sequence[str], places: Iterable[Place]
) -> dict[Place, Card]:
    """A card for every place, reading only the shards that have one.

    Raises:
        DataError: scores and images of a shard do not belong together.
    """
    made: dict[Place, Card] = {}
    by_shard: dict[int, list[int]] = {}
    for shard, row in sorted(set(places)):
        by_shard.setdefault(shard, []).append(row)
    with_images = base_family(workspace) == "images"
    for shard, rows in by_shard.items():
        name = shards[shard]
        known = columns_of(workspace, name, (), ())
        table = read_samples(workspace, name, [c for c in ("text", "url") if c in known], known)
        path = layout.scores(scorer, name)
        if not workspace.read_table(path, ["uid"])["uid"].equals(table["uid"]):
            raise DataError(f"{workspace.url}/{path}: its rows are not the shard's samples; score it again")
        found = table.take(pa.array(rows)).to_pylist()
        pictures = _pictures(workspace, name, [entry["uid"] for entry in found]) if with_images else {}
        for row, entry in zip(rows, found, strict=True):
            made[shard, row] = _card(entry, pictures.get(entry["uid"]))
    return made


def thumbnail(image: bytes) -> str | None:
    """A WebP of at most 168 by 168 pixels as a data URL; None when the image cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(image)) as picture:
                picture.draft("RGB", (SIDE, SIDE))
                small = ImageOps.exif_transpose(picture).convert("RGB")
                small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                out = io.BytesIO()
                small.save(out, "WEBP", quality=72, method=4)
    except Exception:  # noqa: BLE001 - what Pillow raises for a broken image has no common base
        return None
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _pictures(workspace: Workspace, shard: str, uids: list[str]) -> dict[str, str]:
    path = layout.image_tar(shard)
    found: dict[str, str] = {}
    try:
        with workspace.open(path) as stream:
            for uid, _, image in images_of(stream, uids, f"{workspace.url}/{path}"):
                if url := thumbnail(image):
                    found[uid] = url
    except (DataError, OSError):
        pass  # a sheet shows what there is; whoever reads this tar for a purpose says what is wrong
    return found


def _card(entry: dict[str, Any], picture: str | None) -> Card:
    text = " ".join(str(entry.get("text") or "").split())
    short = text if len(text) <= TEXT else text[: TEXT - 1] + "…"
    return Card(str(entry["uid"]), short, _host(str(entry.get("url") or "")), picture)


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "")[:80]
    except ValueError:
        return ""
