"""Loaded by every local worker: Ctrl-C is the driver's, which stops its workers in good order.

A terminal sends the signal to all processes; without this each worker would print a traceback.
"""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker process starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
