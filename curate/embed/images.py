"""A pool of threads that keeps its results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def ordered(
    pool: ThreadPoolExecutor, function: Callable[[T], U], items: Iterator[T], window: int
) -> Iterator[U]:
    """``map`` on a pool that keeps at most ``window`` items in flight, results in order."""
    waiting: deque[Future[U]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
