"""The trail of a sample, readable as it is."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from curate.inspect.explain_text import print_trail


class Trail(dict[str, Any]):
    """What ``explain`` found, as a dictionary; it prints as the command does."""

    def __repr__(self) -> str:
        out = io.StringIO()
        print_trail(Console(file=out, width=200, no_color=True), self)
        return out.getvalue().rstrip()
