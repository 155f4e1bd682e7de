"""Texts, addresses and numbers as a page shows them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

HARMFUL = frozenset({"positive", "nsfw", "unsafe", "yes", "true"})
"""Values of a column like ``nsfw_tag`` that say: not everybody wants to see this picture."""

ENDLESS = 1e300
"""Numbers from here on are shown as infinite."""


def is_unsafe(name: str) -> bool:
    """Whether the name of a rule or column is about pictures that not everybody wants to see."""
    return any(word in name.lower() for word in ("nsfw", "unsafe"))


def shortened(text: Any, length: int) -> str:
    """A text, or nothing for None, on one line and cut at ``length`` characters."""
    line = " ".join(str(text or "").split())
    return line if len(line) <= length else line[: length - 1] + "…"


def plain_link(url: str) -> str | None:
    """The URL when a browser would go to an http(s) address with it, else None."""
    if any(ord(c) <= 0x20 or c == "\x7f" for c in url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None


def host_of(url: str) -> str:
    """The host of a URL, at most 80 characters; nothing when it has none."""
    try:
        return (urlsplit(url).hostname or "")[:80]
    except ValueError:
        return ""


def number(value: float) -> str:
    """A number to read: whole ones in full, others in four digits."""
    if abs(value) >= ENDLESS:
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−", 1) if value < 0 else f"{value:.4g}"
