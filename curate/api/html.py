"""Small pieces of HTML for notebooks, which bring their own page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from curate.pages.words import number, plain_link, shortened

_LEFT = "text-align:left"

TEXT = 90
"""Characters of a caption on a card."""


def facts_html(title: str, facts: Mapping[str, str]) -> str:
    """A title over a table of two columns."""
    rows = "".join(
        f"<tr><th style='{_LEFT}'>{escape(name)}</th><td style='{_LEFT}'>{escape(value)}</td></tr>"
        for name, value in facts.items()
        if value
    )
    return f"<div><b>{escape(title)}</b><table>{rows}</table></div>"


def gallery_html(rows: Iterable[Mapping[str, Any]], pictures: Mapping[str, str]) -> str:
    """Cards of samples: picture, similarity, the beginning of the caption, the first digits of the uid.

    Args:
        rows: with ``uid`` and, if they are known, ``text``, ``url`` and ``similarity``.
        pictures: uid → data URL.
    """
    cards = "".join(_card(row, pictures.get(row["uid"])) for row in rows)
    return f"<div style='display:flex;flex-wrap:wrap;gap:8px'>{cards or 'no samples'}</div>"


def _card(row: Mapping[str, Any], picture: str | None) -> str:
    text = shortened(row.get("text"), TEXT)
    shown = (
        f"<img src='{escape(picture)}' alt='{escape(text)}' style='max-width:144px;max-height:144px'>"
        if picture
        else "<div style='width:144px;height:96px;background:#8882'></div>"
    )
    link = plain_link(str(row.get("url") or ""))
    if link:
        shown = f"<a href='{escape(link)}' rel='noreferrer noopener' target='_blank'>{shown}</a>"
    similarity = row.get("similarity")
    score = f"<b>{escape(number(float(similarity)))}</b> " if similarity is not None else ""
    uid = escape(str(row["uid"])[:8])
    return (
        f"<div style='width:144px;font-size:11px;line-height:1.3;overflow-wrap:anywhere'>{shown}"
        f"<div>{score}{escape(text)}<br><code>{uid}</code></div></div>"
    )
