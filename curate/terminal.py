"""Data on a terminal: what comes from the web is shown, and steers nothing.

Captions, URLs and whatever an error quotes may hold escape sequences (which move the cursor, set the title,
hide text behind a link) and bidirectional controls (which show ``gpj.exe`` as ``exe.jpg``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"
"""Marks, embeddings, overrides, isolates, and the deprecated controls behind them."""
_STEERING = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_BIDI}]")
"""C0 but tab and newline, DEL, C1, separators of lines and paragraphs, bidirectional controls."""
_UNESCAPED = re.compile(f"[\x7f-\x9f\u2028\u2029{_BIDI}\ud800-\udfff]")
"""What ``json.dumps`` leaves as it is and a terminal may act on, and halves of a letter."""


def printable(text: str) -> str:
    """The text with U+FFFD for every character that a terminal acts on; tabs and newlines stay."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """The whole of a text on one line, printable."""
    return printable(" ".join(text.split()))


def escaped(text: str) -> str:
    """The whole of a text on one line, to be put into the markup of a console."""
    return escape(one_line(text))


def json_text(value: Any) -> str:
    """Indented JSON that a terminal only shows, and that means the same."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class SafeConsole(Console):
    """A console whose output is ``printable``, whoever prints on it; its own colours and bars work."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of a renderable; those that are rich's own control codes are as they were."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
