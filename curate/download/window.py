"""Many threads, results in the order of the items, bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

OVERHEAD = 2_048
"""Bytes that a result counts beyond its weight, so that many empty ones are bounded, too."""


class _Window(Generic[T, R]):
    """What the threads share: the items still to do and the results still to hand out."""

    def __init__(
        self, function: Callable[[T], R], items: Iterator[T], weigh: Callable[[R], int], limit: int
    ) -> None:
        self._function = function
        self._items = items
        self._weigh = weigh
        self._limit = limit
        lock = threading.Lock()
        # Two conditions, and one thread woken at a time: with 64 threads, waking all of them for
        # every result costs more than the results.
        self._room = threading.Condition(lock)
        self._ready = threading.Condition(lock)
        self._results: dict[int, R] = {}
        self._held = 0
        self._started = 0
        self._next = 0
        self._exhausted = False
        self._failure: BaseException | None = None
        self._stopped = False

    def work(self) -> None:
        """Body of a thread: item after item until there are no more."""
        while (taken := self._take()) is not None:
            index, item = taken
            try:
                result = self._function(item)
            except BaseException as error:  # noqa: BLE001 - raised again where the results are read
                self._fail(error)
                return
            with self._ready:
                self._results[index] = result
                self._held += self._weigh(result) + OVERHEAD
                if index == self._next:
                    self._ready.notify()

    def _take(self) -> tuple[int, T] | None:
        with self._room:
            # Whoever holds the oldest unfinished item never waits here, so this cannot deadlock.
            self._room.wait_for(lambda: self._held < self._limit or self._stopped or self._exhausted)
            self._room.notify()
            if self._stopped or self._exhausted:
                return None
            try:
                item = next(self._items)
            except StopIteration:
                self._exhausted = True
                self._ready.notify()
                return None
            except BaseException as error:  # noqa: BLE001 - raised again where the results are read
                self._failure = self._failure or error
                self._stopped = True
                self._ready.notify()
                return None
            self._started += 1
            return self._started - 1, item

    def _fail(self, error: BaseException) -> None:
        with self._ready:
            self._failure = self._failure or error
            self._stopped = True
            self._ready.notify()
            self._room.notify()

    def stop(self) -> None:
        """No new items."""
        with self._room:
            self._stopped = True
            self._room.notify()

    def take_result(self) -> tuple[R] | None:
        """Wait for the next result in order; None past the last. Raises what a thread raised."""
        with self._ready:
            self._ready.wait_for(
                lambda: (
                    self._next in self._results
                    or self._failure is not None
                    or (self._exhausted and self._next >= self._started)
                )
            )
            if self._failure is not None:
                raise self._failure
            if self._next not in self._results:
                return None
            result = self._results.pop(self._next)
            self._next += 1
            self._held -= self._weigh(result) + OVERHEAD
            self._room.notify()
            return (result,)


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    weigh: Callable[[R], int],
    limit: int,
) -> Generator[R, None, None]:
    """Apply ``function`` in threads and yield results in the order of ``items``.

    Items are started in order and ahead of the slowest one for as long as the finished results
    that wait for it weigh less than ``limit`` bytes. So at worst ``limit`` plus one result per
    thread is held, and a single slow item does not stop the others.

    Raises:
        BaseException: whatever ``function`` or ``items`` raised, at the next result.
    """
    window = _Window(function, iter(items), weigh, limit)
    workers = [threading.Thread(target=window.work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        while (result := window.take_result()) is not None:
            yield result[0]
    finally:
        # Threads in the middle of a request end with it; their results go nowhere.
        window.stop()
