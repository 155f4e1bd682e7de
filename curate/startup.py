"""What makes commands start and end sooner."""

from __future__ import annotations

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Import and build without the garbage collector.

    What comes now stays to the end, and to look through it again and again while it grows takes a tenth of
    the time until the first row is seen.
    """
    gc.disable()
    try:
        yield
    finally:
        # Into the oldest generation, as if it had been looked through.
        gc.freeze()
        gc.unfreeze()
        gc.enable()


def end_without_collecting() -> None:
    """Do not look for garbage in all that was imported once more before the process ends: 50 ms.

    Whatever has to be closed closes as ever; what comes at the very end, the memory, goes with the process.
    """
    atexit.register(_freeze)


_COMPLAINING = {"torch", "duckdb"}
"""They bring modules that at the end complain about whatever was not collected (nanobind's)."""


def _freeze() -> None:
    if not _COMPLAINING & sys.modules.keys():
        gc.freeze()


class _NoPandas:
    """Finds no pandas, and leaves everything else to others."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("not now", name=name)


def leave_pandas_out() -> None:
    """Let pyarrow find no pandas in this process.

    It looks for it to recognise its objects, and where it is installed (img2dataset brings it) imports it: a
    quarter of a second before anything else happens. Nothing here uses it but the downloader, which is for
    processes that do not call this. Later imports of pandas work as ever.
    """
    if "pandas" in sys.modules:
        return
    finder: Any = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        with starting():
            import numpy as np
            import pyarrow as pa

            # Both ways in which it looks; it looks once.
            np.asarray(pa.chunked_array([pa.array([0])]))
    finally:
        sys.meta_path.remove(finder)
