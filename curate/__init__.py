"""curate: from Common Crawl metadata to a curated image-text dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.training import load_selection as load_selection

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``curate.load_selection``, imported when it is asked for: the command line does not pay for it."""
    if name == "load_selection":
        from curate.training import load_selection

        return load_selection
    raise AttributeError(f"module 'curate' has no attribute '{name}'")
