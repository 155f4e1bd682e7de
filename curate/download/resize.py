"""A body to the file that is stored, with what is told about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from curate.config.models import DownloadSettings
from curate.download import engine
from curate.download.decode import Decoded, Header, load, read_header
from curate.download.limits import ImageError, Limits, is_decoding_error
from curate.download.memory import BUDGET, LARGE, THREADS, give_back
from curate.download.outline import outline
from curate.download.rgb import Pixels
from curate.download.sandbox import SANDBOX

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A stored image. Sizes in pixels; the original's are those of the upright image."""

    data: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    exif: str | None
    sha256: str
    """Of the downloaded bytes."""
    damage: str = ""
    """What was wrong with it, when it is kept though truncated."""


def with_decoded(body: bytes, limits: Limits, use: Callable[[Decoded], T]) -> T:
    """What ``use`` makes of a body decoded, in this thread or in the sandbox, within the budget of memory.

    The verdict is that of Pillow's plain ``load()``, wherever it is decoded.

    Raises:
        ImageError: it does not decode, or its size is outside the limits; or what ``use`` raises.
    """
    result, taken = _with_decoded(body, limits, use)
    if taken > LARGE:
        give_back()
    return result


def _with_decoded(body: bytes, limits: Limits, use: Callable[[Decoded], T]) -> tuple[T, int]:
    """The result, and how many bytes it took; nothing of them is referred to any more."""
    total = limits.decode_memory
    header = _open_here(body, limits)
    if header is not None:
        with BUDGET.hold(header.needed, total):
            decoded = _load_here(header, limits)
            if decoded is not None:
                return use(decoded), header.needed
    # How much it will take is known only there, where it is opened: so it has all the memory.
    with BUDGET.hold(total, total):
        return use(SANDBOX.decode(body, limits)), total


def _open_here(body: bytes, limits: Limits) -> Header | None:
    """An image that this thread may load; None for the sandbox."""
    seen = outline(body)
    if seen is None:
        return None
    limits.check_size(seen.width, seen.height)
    if not seen.in_thread:
        return None
    try:
        header = read_header(body, limits, seen.scans)
    except ImageError as error:
        if _may_be_kept(error, limits):
            return None
        raise
    return header if header.size == (seen.width, seen.height) else None


def _load_here(header: Header, limits: Limits) -> Decoded | None:
    try:
        return load(header, limits)
    except ImageError as error:
        if _may_be_kept(error, limits):
            return None
        raise


def _may_be_kept(error: ImageError, limits: Limits) -> bool:
    return limits.truncated == "keep" and is_decoding_error(error)


class Shrinker:
    """Checks, decodes, resizes and encodes. One per shard, shared by its threads.

    All shrinkers of a process together hold at most `decode_memory` bytes for images in flight, plus what the
    sandbox holds when idle (25 MB) and a few MB per thread.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        self.limits = Limits.from_settings(settings)
        self._resizer = engine.make_resizer(settings)

    def __call__(self, body: bytes) -> Picture:
        """The stored form of an image.

        Raises:
            ImageError: it does not decode, or its size is outside the limits.
        """
        return THREADS.run(self._shrink, body)

    def _shrink(self, body: bytes) -> Picture:
        return with_decoded(body, self.limits, lambda decoded: self._store(body, decoded))

    def _store(self, body: bytes, decoded: Decoded) -> Picture:
        if decoded.pixels is None:
            data, width, height = body, decoded.width, decoded.height
        else:
            data, width, height = self.resize(decoded.pixels)
        return Picture(
            data=data,
            width=width,
            height=height,
            original_width=decoded.width,
            original_height=decoded.height,
            exif=decoded.exif,
            sha256=hashlib.sha256(body).hexdigest(),
            damage=decoded.damage,
        )

    def resize(self, pixels: Pixels) -> tuple[bytes, int, int]:
        """Pixels through the engine: encoded, width, height. Raises ImageError in its words."""
        data, width, height, words = engine.resize(self._resizer, pixels)
        if data is None:
            raise ImageError(words)
        return data, width, height
