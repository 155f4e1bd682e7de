"""Stored images of a shard: out of the tar, and through a pool of threads."""

from __future__ import annotations

import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TypeVar

T = TypeVar("T")
U = TypeVar("U")

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jfif"})


def members(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """(key, bytes) of the images of a webdataset tar, in its order, read once from start to end.

    The key is the member's name up to its first dot. A tar that is cut short ends where it is cut:
    what came whole is given, without an error.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                key, _, suffix = member.name.rsplit("/", 1)[-1].partition(".")
                if not member.isfile() or suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                content = tar.extractfile(member)
                data = content.read() if content is not None else b""
                if len(data) < member.size:
                    return
                yield key, data
    except (tarfile.TarError, EOFError):
        return


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
