"""Caption, host and picture of the samples that are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.dataset.family import IMAGES, Family, base_family
from curate.dataset.workspace import Workspace
from curate.errors import DataError
from curate.pages.pictures import thumbnails
from curate.pages.words import host_of, shortened
from curate.samples.columns import columns_of, read_samples

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
    with_images = base_family(workspace) == IMAGES
    for shard, rows in by_shard.items():
        name = shards[shard]
        known = columns_of(workspace, name, (), ())
        table = read_samples(workspace, name, [c for c in ("text", "url") if c in known], known)
        path = Family.scores(scorer).path(name)
        if not workspace.read_table(path, ["uid"])["uid"].equals(table["uid"]):
            raise DataError(f"{workspace.url}/{path}: its rows are not the shard's samples; score it again")
        found = table.take(pa.array(rows)).to_pylist()
        uids = [entry["uid"] for entry in found]
        pictures = thumbnails(workspace, name, uids, SIDE) if with_images else {}
        for row, entry in zip(rows, found, strict=True):
            made[shard, row] = _card(entry, pictures.get(entry["uid"]))
    return made


def _card(entry: dict[str, Any], picture: str | None) -> Card:
    text, host = shortened(entry.get("text"), TEXT), host_of(str(entry.get("url") or ""))
    return Card(str(entry["uid"]), text, host, picture)
