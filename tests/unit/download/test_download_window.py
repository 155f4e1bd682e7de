from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.download.window import OVERHEAD, ordered_map


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.integers(1, 9),
    st.sampled_from([1, OVERHEAD + 5, 10 * OVERHEAD, 10**9]),
)
def test_results_are_in_order(delays: list[int], threads: int, limit: int) -> None:
    def work(item: tuple[int, int]) -> int:
        time.sleep(item[1] / 2000)
        return item[0]

    got = ordered_map(work, list(enumerate(delays)), threads, lambda r: r, limit)
    assert list(got) == list(range(len(delays)))


def test_what_waits_is_bounded() -> None:
    """Behind a slow first item, no more finish than the limit and the threads allow."""
    first = threading.Event()
    finished = []

    def work(item: int) -> int:
        if item == 0:
            first.wait(20)
        finished.append(item)
        return item

    threads, fit = 4, 10
    results = ordered_map(work, range(1000), threads, lambda _: 1000 - OVERHEAD, fit * 1000)
    consumer = threading.Thread(target=lambda: seen.extend(results))
    seen: list[int] = []
    consumer.start()
    while len(finished) < fit:
        time.sleep(0.001)
    time.sleep(0.1)
    assert len(finished) <= fit + threads
    first.set()
    consumer.join(20)
    assert seen == list(range(1000))


def test_items_are_read_as_needed() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(10_000):
            taken += 1
            yield i

    results = ordered_map(lambda i: i, items(), 2, lambda _: 0, 5 * OVERHEAD)
    assert [next(results) for _ in range(10)] == list(range(10))
    time.sleep(0.05)
    results.close()
    assert taken <= 10 + 5 + 2 + 1


def test_failures_come_out() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise KeyError("three")
        return item

    with pytest.raises(KeyError, match="three"):
        list(ordered_map(work, range(10), 2, lambda _: 0, 10**6))

    def items() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(ordered_map(lambda i: i, items(), 2, lambda _: 0, 10**6))
