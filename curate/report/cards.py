"""The chosen samples with their pictures and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from curate.dataset.samples import Column, read_samples
from curate.dataset.workspace import Workspace
from curate.report.charts import number
from curate.report.collect import Collected
from curate.report.picking import Pick
from curate.report.thumbnails import thumbnails
from curate.report.verdicts import is_unsafe

TEXT = 280
"""Characters of an alt text that a card shows."""

HARMFUL = {"positive", "nsfw", "unsafe", "yes", "true"}


@dataclass(frozen=True)
class Card:
    """A sample as a gallery shows it; all strings are as found on the web and have to be escaped.

    Attributes:
        picture: data URL, or None when there is no readable picture.
        link: the URL when it is plain http(s), else None.
        values: column → value, as text.
        reason: why it was dropped, or ``kept``.
        unsafe: blur it until it is asked for.
    """

    uid: str
    text: str
    picture: str | None
    link: str | None
    host: str
    values: dict[str, str]
    reason: str
    unsafe: bool


def cards(
    workspace: Workspace, found: Collected, columns: dict[str, Column], shown: Sequence[str]
) -> dict[Pick, Card]:
    """A card for every pick, reading the shards that have one and no others."""
    by_shard: dict[str, set[Pick]] = {}
    galleries = [*found.galleries.values(), *(g for pair in found.near.values() for g in pair)]
    for pick in (p for g in galleries for p in g.picks):
        by_shard.setdefault(pick.shard, set()).add(pick)
    tags = [n for n in columns if is_unsafe(n) and n.endswith("_tag")]
    names = list(dict.fromkeys([*(n for n in ("text", "url") if n in columns), *shown, *tags]))
    made = {}
    for shard, picks in sorted(by_shard.items()):
        ordered = sorted(picks, key=lambda p: p.row)
        table = read_samples(workspace, shard, names, columns)
        rows = table.take(pa.array([p.row for p in ordered])).to_pylist()
        pictures = thumbnails(workspace, shard, [r["uid"] for r in rows])
        for pick, row in zip(ordered, rows, strict=True):
            tagged = any(str(row[t] or "").lower() in HARMFUL for t in tags)
            reason, failed = found.fates[pick.shard, pick.row]
            made[pick] = _card(row, pictures.get(row["uid"]), shown, reason, tagged or failed)
    return made


def _card(row: dict[str, Any], picture: str | None, shown: Sequence[str], reason: str, unsafe: bool) -> Card:
    text = " ".join(str(row.get("text") or "").split())
    url = str(row.get("url") or "")
    return Card(
        uid=str(row["uid"]),
        text=text if len(text) <= TEXT else text[: TEXT - 1] + "…",
        picture=picture,
        link=plain_link(url),
        host=_host(url),
        values={name: _value(row[name]) for name in shown},
        reason=reason,
        unsafe=unsafe,
    )


def plain_link(url: str) -> str | None:
    """The URL when a browser would go to an http(s) address with it, else None."""
    if any(ord(c) <= 0x20 or c == "\x7f" for c in url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or url[:60]
    except ValueError:
        return url[:60]


def _value(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(float(value))
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"
