"""Loaded by every local worker.

Ctrl-C is the driver's, which stops its workers in good order: a terminal sends the signal to all processes,
and without this each worker would print a traceback. Loggers are the driver's as well.
"""

from __future__ import annotations

import signal
from typing import Any

from distributed import WorkerPlugin

from curate.engine.logs import own_loggers
from curate.plugins import PluginFile


class BringPlugin(WorkerPlugin):
    """Brings a plug-in file to every worker, also to those that join later."""

    def __init__(self, file: PluginFile) -> None:
        self.file = file

    def setup(self, worker: Any) -> None:
        """Called by Dask when the worker starts, or at once."""
        self.file.load()


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker process starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own_loggers()
