"""Bounds on what decoding takes in one process: two threads, and one budget of bytes."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

DECODERS = 2
"""Images decoded at a time in one worker, which has one core: one decodes while one waits for Python."""

LARGE = 16 << 20
"""Bytes from which freed memory is given back to the system at once."""


class DecodingThreads:
    """Few threads that decode for many that download.

    The C library keeps freed memory for the thread that it was taken by, up to 64 MB each: with sixty threads
    that decode, what is kept would exceed what is in use.
    """

    def __init__(self, count: int = DECODERS) -> None:
        self._count = count
        self._start()
        os.register_at_fork(after_in_child=self._start)  # threads do not survive a fork

    def _start(self) -> None:
        self._pool = ThreadPoolExecutor(self._count, "decode")

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in one of the threads and wait for it; what it raises is raised here."""
        return self._pool.submit(function, *args, **kwargs).result()


class ByteBudget:
    """Bounds the sum of what is held at a time. First come, first served."""

    def __init__(self) -> None:
        self._held = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int, total: int) -> Iterator[None]:
        """Wait until ``size`` bytes fit into ``total``, or nothing else is held.

        Nobody overtakes, so a large image gets its turn however many small ones come.
        """
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + size <= total)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify()


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc: well below a millisecond)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


THREADS = DecodingThreads()
BUDGET = ByteBudget()
"""Of this process, shared by all shards that it works on."""
