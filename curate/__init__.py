"""curate: from Common Crawl metadata to a curated image-text dataset.

::

    import curate

    ds = curate.run("laion.yaml")                  # or curate.open("./laion")
    frame = ds.samples("top30", columns=["text", "similarity"]).pandas()
    ds.search("a red bicycle")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.api.dataset import Dataset as Dataset
    from curate.api.runs import open_dataset as open
    from curate.api.runs import run as run
    from curate.api.samples import Samples as Samples
    from curate.errors import CurateError as CurateError
    from curate.errors import UserError as UserError
    from curate.training import load_selection as load_selection

__version__ = "0.1.0"

__all__ = ["CurateError", "Dataset", "Samples", "UserError", "__version__", "load_selection", "open", "run"]

_PLACES = {
    "CurateError": "curate.errors:CurateError",
    "Dataset": "curate.api.dataset:Dataset",
    "Samples": "curate.api.samples:Samples",
    "UserError": "curate.errors:UserError",
    "load_selection": "curate.training:load_selection",
    "open": "curate.api.runs:open_dataset",
    "run": "curate.api.runs:run",
}
"""Imported when it is asked for: the command line does not pay for it."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'curate' has no attribute '{name}'")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
