"""Bytes of a file that may be gzip and may be damaged, as text and the gaps in it.

A gzip file is a row of members, each with its own checksum (RFC 1952); Common Crawl writes one per record.
So damage costs the member it is in: reading goes on at the next one.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from fastwarc import GzipReader

MAX_HELD_STORED = 4 << 20
MAX_HELD_TEXT = 32 << 20
"""A member beyond either is too long to be held until its checksum is known."""

_SEGMENT = 256 << 10
_SEGMENT_TEXT = 4 << 20
"""Stored bytes unpacked at once while nothing is damaged, and the most that they may unpack to."""
_SMALLEST_SEGMENT = 16 << 10
_STEP = 64 << 10
"""Bytes that an inflater is given, and gives, at once."""

BYTES_LOST = "bytes_lost"
"""The key under which the statistics of a file count damage."""

_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")
_MAGIC = b"\x1f\x8b"
_WARC = b"WARC/"

_PATIENCE = 64
"""Bytes that may be unpacked in vain, per stored byte; a real file needs less than ten."""
_TRIAL = 4096
"""What a member that does not unpack at all counts as."""


class Readable(Protocol):
    """A stream of bytes, read from front to back."""

    def read(self, size: int = ..., /) -> bytes:
        """Up to ``size`` bytes, b"" at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """The next unpacked bytes.

    ``checked`` says that nothing speaks against any text up to the end of ``data``: the checksums of its
    members are right, or it was never packed.
    """

    data: bytes
    checked: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """``size`` stored bytes could not be unpacked: the text before and the text after do not join."""

    size: int


def unpack(stream: Readable, *, salvage: bool = False) -> Iterator[Text | Gap]:
    """The text of a plain or a gzip file of any number of members, and the gaps where it is damaged.

    Text of a damaged member is not given out, with two exceptions: a member too long to be held
    (:data:`MAX_HELD_TEXT`, :data:`MAX_HELD_STORED`), and one that the end of the file cuts off. Theirs comes
    unchecked, and a gap follows where it breaks off. With ``salvage`` so does that of any other, up to where
    it does not unpack. After a gap comes the next member that unpacks with the right checksum or, if it is
    too long or cut off, whose text begins as a WARC record. Zero bytes between members are padding.

    Holds at most 5 MiB of the file and 64 MiB of text. Time is linear in the length of the file, whatever
    is in it.

    Raises: what ``stream.read`` raises, and nothing else.
    """
    stored = _Stored(stream)
    stored.fill(_SEGMENT)
    if _is_gzip(stored):
        yield from _iter_members(stored, salvage)
        return
    while stored.left:
        yield Text(stored.held(), True)
        stored.drop(stored.left)
        stored.fill(_SEGMENT)


class _Stored:
    """The stored bytes from a position on, read as they are needed."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self.offset = 0
        self.ended = False

    @property
    def left(self) -> int:
        """How many bytes are held."""
        return len(self._data) - self._at

    def fill(self, size: int, ahead: int = 0) -> None:
        """Hold ``size`` bytes, or all that are left; if more have to be read, ``ahead`` further ones."""
        held = self.left
        if held >= size or self.ended:
            return
        size += ahead
        parts = [self._data[self._at :]]
        while held < size and not self.ended:
            more = self._stream.read(size - held)
            parts.append(more)
            held += len(more)
            self.ended = not more
        self._data, self._at = b"".join(parts), 0

    def view(self, start: int = 0, size: int | None = None) -> memoryview:
        """Held bytes, counted from the position."""
        first = self._at + start
        return memoryview(self._data)[first : None if size is None else first + size]

    def drop(self, size: int) -> None:
        """Move the position forward."""
        self._at += size
        self.offset += size

    def held(self, size: int | None = None) -> bytes:
        """A copy of the first held bytes."""
        return self._data[self._at : None if size is None else self._at + size]

    def starts_with(self, prefix: bytes) -> bool:
        """Whether the bytes at the position are ``prefix``."""
        return self._data.startswith(prefix, self._at)

    def find_member(self, start: int) -> int | None:
        """Where the next member may begin, counted from the position; None if in no held byte."""
        found = _MEMBER.search(self._data, self._at + start)
        return found.start() - self._at if found else None


def _is_gzip(stored: _Stored) -> bool:
    """By the first bytes or, where these are damaged, by a member further on."""
    if bytes(stored.view(0, 64)).lstrip().startswith(_WARC):
        return False
    if stored.starts_with(_MAGIC):
        return True
    at = stored.find_member(0)
    while at is not None:
        start = bytes(stored.view(at, 1024))
        try:
            if zlib.decompressobj(wbits=31).decompress(start, len(_WARC)) == _WARC:
                return True
        except zlib.error:
            pass
        at = stored.find_member(at + 1)
    return False


class _State(Enum):
    WHOLE = auto()
    """Unpacked, and its checksum is right."""
    LONG = auto()
    """Right so far, but too long to be held."""
    CUT = auto()
    """Right so far, but the file ends."""
    BROKEN = auto()


@dataclass(frozen=True, slots=True)
class _Member:
    """What came of unpacking one member: its text so far, the stored bytes that it took."""

    state: _State
    text: bytes
    size: int
    inflater: Any


def _iter_members(stored: _Stored, salvage: bool) -> Iterator[Text | Gap]:
    gap: int | None = None  # stored bytes since the last member that could be unpacked
    cut: tuple[int | None, bytes] | None = None  # a gap, and the text of a cut member behind it
    segment = _SEGMENT
    one_by_one_until = padding = wasted = 0
    while True:
        one_by_one = gap is not None or stored.offset < one_by_one_until
        if one_by_one:
            stored.fill(_STEP, _SEGMENT)
        else:
            stored.fill(segment)
        if not stored.left:
            break
        if not one_by_one:
            run = _whole_members(stored, segment)
            if run is not None:
                for piece in run:
                    yield Text(piece, True)
                segment, padding = min(segment * 2, _SEGMENT), 0
                continue
            one_by_one_until = stored.offset + segment
            segment = max(segment // 2, _SMALLEST_SEGMENT)
        if gap is None and (zeros := _leading_zeros(stored)):
            stored.drop(zeros)
            padding += zeros
            continue
        member = _inflate(stored)
        state = member.state
        if gap is not None and state in (_State.CUT, _State.LONG) and not member.text.startswith(_WARC):
            state = _State.BROKEN
        if state in (_State.CUT, _State.BROKEN):
            text = member.text
            if salvage and gap is None:
                yield Text(text, False)
                text = b""
            if state is _State.CUT:  # or it is damaged and ran over its end: there may be members behind
                cut = (gap, text)
            wasted += len(member.text) + _TRIAL
            patient = wasted <= _PATIENCE * (stored.offset + stored.left) + 2 * MAX_HELD_TEXT
            gap = (gap or 0) + padding + _skip(stored, patient)
            padding = 0
            continue
        if gap is not None:
            yield Gap(gap)
        gap, cut, padding = None, None, 0
        yield Text(member.text, state is _State.WHOLE)
        kept = min(member.size - 1, 2 * _SEGMENT) if state is _State.LONG else 0
        stored.drop(member.size - kept)
        if state is _State.LONG:
            state = yield from _rest_of_member(stored, member.inflater, kept)
            if state is not _State.WHOLE:
                gap, wasted = 0, wasted + len(member.text)
                cut = (None, b"") if state is _State.CUT else None
    if cut is not None:
        gap, text = cut
        if gap is not None:
            yield Gap(gap)
        yield Text(text, False)
        yield Gap(0)
    elif gap is not None:
        yield Gap(gap)


def _whole_members(stored: _Stored, size: int) -> list[bytes] | None:
    """The text of all members that end within ``size`` bytes; moves behind them.

    None if there are none, if there is anything but whole members and the beginning of one, or if they
    unpack to too much. The inflater is faster than zlib's and less exact about where it stops.
    """
    data = stored.held(size)
    reader = GzipReader(io.BytesIO(data))
    pieces: list[bytes] = []
    length = 0
    try:
        while piece := reader.read(_STEP):
            pieces.append(piece)
            length += len(piece)
            if length > _SEGMENT_TEXT:
                return None
        # The last member is unpacked again: the reader says where it begins, not whether it ends.
        start = reader.frame_start_position() or 0
        last = zlib.decompressobj(wbits=31)
        tail = last.decompress(memoryview(data)[start:], _SEGMENT_TEXT + 1)
    except (OSError, zlib.error):
        return None
    end = b""
    while pieces and len(end) < len(tail):
        end = pieces.pop() + end
    if not end.endswith(tail) or not (start or last.eof):
        return None
    if last.eof:
        stored.drop(len(data) - len(last.unused_data))
    else:
        stored.drop(start)
        end = end[: len(end) - len(tail)]
    return [*pieces, end]


def _leading_zeros(stored: _Stored) -> int:
    if not stored.starts_with(b"\0"):
        return 0
    return stored.left - len(stored.held().lstrip(b"\0"))


def _inflate(stored: _Stored) -> _Member:
    """Unpack the member at the position, which does not move."""
    inflater = zlib.decompressobj(wbits=31)
    pieces: list[bytes] = []
    length = used = 0
    state = _State.WHOLE
    try:
        while not inflater.eof:
            stored.fill(used + _STEP, _SEGMENT)
            given = stored.view(used, _STEP)
            piece = inflater.decompress(given, _STEP)
            pieces.append(piece)
            length += len(piece)
            used += len(given) - _left_over(inflater)
            if not given and not piece:
                state = _State.CUT
                break
            if used > MAX_HELD_STORED or length > MAX_HELD_TEXT:
                state = _State.LONG
                break
    except zlib.error:
        state = _State.BROKEN
    return _Member(state, b"".join(pieces), used, inflater)


def _left_over(inflater: Any) -> int:
    """How many of the bytes given last were not used."""
    return len(inflater.unused_data if inflater.eof else inflater.unconsumed_tail)


def _rest_of_member(stored: _Stored, inflater: Any, used: int) -> Generator[Text, None, _State]:
    """What follows of a long member, of which ``used`` held bytes are unpacked; returns how it ends.

    If not whole, the position is before its end: damage may have swallowed the next members.
    """
    try:
        while not inflater.eof:
            if used > 2 * _SEGMENT:
                stored.drop(_SEGMENT)
                used -= _SEGMENT
            stored.fill(used + _STEP)
            given = stored.view(used, _STEP)
            piece = inflater.decompress(given, _STEP)
            used += len(given) - _left_over(inflater)
            if piece:
                yield Text(piece, False)
            elif not given:
                return _State.CUT
    except zlib.error:
        return _State.BROKEN
    stored.drop(used)
    yield Text(b"", True)
    return _State.WHOLE


def _skip(stored: _Stored, patient: bool) -> int:
    """Move to where the next member may begin, or behind all held bytes; returns how far that was."""
    found = stored.find_member(1) if patient else None
    if found is None:
        # What is left may be the beginning of a member's first bytes.
        found = stored.left if stored.ended or not patient else max(1, stored.left - 3)
    stored.drop(found)
    return found
