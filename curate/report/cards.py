"""The chosen samples with their pictures and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.dataset.workspace import Workspace
from curate.pages.pictures import thumbnails
from curate.pages.words import HARMFUL, host_of, is_unsafe, plain_link, shortened
from curate.report.charts import number
from curate.report.collect import PoolStatistics
from curate.report.picking import Pick
from curate.samples.columns import Column, read_samples

TEXT = 280
"""Characters of an alt text that a card shows."""


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
    workspace: Workspace, found: PoolStatistics, columns: dict[str, Column], shown: Sequence[str]
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
    url = str(row.get("url") or "")
    return Card(
        uid=str(row["uid"]),
        text=shortened(row.get("text"), TEXT),
        picture=picture,
        link=plain_link(url),
        host=host_of(url) or url[:60],
        values={name: _value(row[name]) for name in shown},
        reason=reason,
        unsafe=unsafe,
    )


def _value(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(float(value))
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"
