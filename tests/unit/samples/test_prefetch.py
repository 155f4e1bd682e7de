"""A thread that makes the next item while one is used."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from curate.samples.pool import prefetch


def test_items_come_in_order_prefetch() -> None:
    made: list[int] = []
    threads = set()

    def items() -> Generator[int]:
        for i in range(5):
            made.append(i)
            threads.add(threading.current_thread())
            yield i

    found = []
    for item in prefetch(items()):
        assert len(made) <= item + 2
        found.append(item)
    assert found == made == list(range(5))
    assert len(threads) == 1
    assert threading.current_thread() not in threads
    assert list(prefetch(iter_of_nothing())) == []


def iter_of_nothing() -> Generator[int]:
    yield from ()


def test_what_goes_wrong_is_raised_in_its_place() -> None:
    def items() -> Generator[int]:
        yield 1
        raise ValueError("second")

    found = prefetch(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="second"):
        next(found)


def test_who_stops_early_closes_it() -> None:
    closed = threading.Event()

    def items() -> Generator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    before = threading.active_count()
    found = prefetch(items())
    assert next(found) == 0
    found.close()
    assert closed.is_set()
    assert threading.active_count() == before
