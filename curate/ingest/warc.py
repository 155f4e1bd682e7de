"""Bodies of the metadata records of a WARC file, whatever state it is in.

A record is a header of lines, an empty line, ``Content-Length`` bytes of body and two line ends (ISO 28500).
Line ends may be LF alone. Where a record is not like that, reading goes on where the next one begins.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from curate.ingest.unpack import BYTES_LOST, Gap, Readable, unpack
from curate.reasons import IngestReason

MAX_HEADER_BYTES = 32 << 10
"""A record with a longer header is damaged."""

_WARC = b"WARC/"
_VERSION = re.compile(rb"WARC/[01]\.\d{1,2}[ \t]{0,9}\r?\n")
_START = re.compile(_VERSION.pattern + rb"[A-Za-z]")
_START_BYTES = 32
"""At least the length of a match of ``_START``."""
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_LINE_ENDS = re.compile(rb"[\r\n]*")
_LENGTH = re.compile(rb"\n(?i:content-length)[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?\n")
_METADATA = re.compile(rb"\n(?i:warc-type[ \t]*:[ \t]*metadata)[ \t]*\r?\n")
_PADDING = b"\r\n\0"
_USUAL_END = b"\r\n\r\nWARC/"
_UNDECIDED = -1
_TAIL_BYTES = 32
"""Looked at behind a body to see that it ends where its header says."""


def iter_metadata(
    stream: Readable, counts: Counter[str], stats: Counter[str], *, max_record_bytes: int
) -> Iterator[bytes]:
    """Bodies of the metadata records of a WARC file, plain or gzip, in order.

    Damage costs the records that it touches. Each damaged stretch between two good records adds one
    ``damaged_record`` to ``counts``; one that goes on to the end of the file adds one ``truncated_input``, as
    does a file of no bytes. ``stats["bytes_lost"]`` grows by their lengths: of what cannot be unpacked in
    stored bytes, of what can be unpacked and is in no good record in unpacked ones. A record, of whatever
    kind, that is said to be longer than ``max_record_bytes`` is not read and adds one ``unreadable_record``.

    A record of a gzip file is given out when the checksum of its member is right. In a member whose checksum
    is not known before its text is (see :func:`~curate.ingest.unpack.unpack`), a record is given out when
    another one begins behind it.

    Holds up to three times ``max_record_bytes``, beside what :func:`~curate.ingest.unpack.unpack` holds.

    Raises: what ``stream.read`` raises, and nothing else.
    """
    records = _Records(counts, stats, max_record_bytes)
    waiting: bytes | None = None  # a body whose checksum is not known yet
    checked = empty = True
    for piece in unpack(stream):
        empty = False
        if isinstance(piece, Gap):
            if waiting is not None and records.begun:
                yield waiting
                waiting = None
            bodies = records.end()
        else:
            bodies = records.read(piece.data)
            checked = piece.checked or (checked and not piece.data)
        for body in bodies:
            if waiting is not None:
                yield waiting
            waiting = body
        if waiting is not None and checked:
            yield waiting
            waiting = None
        if isinstance(piece, Gap):
            records.lose(piece.size + len(waiting or b""))
            waiting = None
    yield from records.end()
    if records.damaged or empty:
        counts[IngestReason.TRUNCATED_INPUT] += 1


def swallowed(
    body: bytes, counts: Counter[str], stats: Counter[str], *, max_record_bytes: int
) -> list[bytes] | None:
    """The metadata records in the body of another whose ``Content-Length`` is too long; None for no record.

    They are missed by :func:`iter_metadata` when the wrong length happens to end with a record. What is in
    front of the first counts as damage.
    """
    start = _START.search(body)
    if start is None:
        return None
    records = _Records(counts, stats, max_record_bytes)
    records.lose(start.start())
    bodies = [*records.read(body[start.start() :]), *records.end()]
    if records.damaged:
        counts[IngestReason.DAMAGED_RECORD] += 1
    return bodies


class _Records:
    """Finds records in text that comes in pieces."""

    def __init__(self, counts: Counter[str], stats: Counter[str], max_record_bytes: int) -> None:
        self.damaged = False
        """Whether bytes were lost since the last good record."""
        self._counts = counts
        self._stats = stats
        self._max_record_bytes = max_record_bytes
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = 0
        self._text = b""
        self._at = 0
        self._body: bytes | None = None
        self._found = False
        self._searching = False
        self._refused = False

    @property
    def begun(self) -> bool:
        """Whether a record has begun whose end has not come yet."""
        return not self._searching and b"".join(self._pieces).lstrip(b"\r\n").startswith(_WARC)

    def read(self, data: bytes) -> Iterator[bytes]:
        """Bodies of the metadata records that are complete with ``data``."""
        self._pieces.append(data)
        self._held += len(data)
        return self._bodies(final=False) if self._held >= self._needed else iter(())

    def end(self) -> Iterator[bytes]:
        """The same when no text follows, or none that joins; what is left over is lost."""
        return self._bodies(final=True)

    def lose(self, size: int) -> None:
        """Count damage."""
        self.damaged = True
        self._stats[BYTES_LOST] += size

    def _bodies(self, final: bool) -> Iterator[bytes]:
        self._text = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._at = 0
        while self._step(final):
            if self._body is not None:
                yield self._body
        rest = self._text[self._at :]
        self._pieces, self._held = ([rest] if rest else []), len(rest)
        self._text, self._body = b"", None
        if final:
            self._searching = self._refused = False

    def _step(self, final: bool) -> bool:
        """Read one record or skip damage; returns whether to go on with the text at hand."""
        self._body = None
        if self._searching and not self._find_start(final):
            return False
        text = self._text
        if not text.startswith(_WARC, self._at):
            self._at = _LINE_ENDS.match(text, self._at).end()  # type: ignore[union-attr]
            if not text.startswith(_WARC, self._at):
                return self._no_record(final)
        at = self._at
        left = len(text) - at
        empty_line = _EMPTY_LINE.search(text, at, at + MAX_HEADER_BYTES)
        if empty_line is None:
            if left < MAX_HEADER_BYTES:
                return self._search(len(text)) if final else self._wait(left + 1)
            return self._search(at + MAX_HEADER_BYTES // 2)  # not less: many may begin, and none end
        body, header_end = empty_line.end(), empty_line.start() + 1
        length = _LENGTH.search(text, at, header_end)
        inner = text.find(_WARC, at + len(_WARC), header_end)
        if length is None or not _VERSION.match(text, at) or (inner > 0 and _START.search(text, inner, body)):
            return self._search(at + len(_WARC))
        is_metadata = _METADATA.search(text, at, header_end) is not None
        size = int(length[1])
        if size > self._max_record_bytes:
            self._counts[IngestReason.UNREADABLE_RECORD] += 1
            self._at, self._searching, self._refused = at + len(_WARC), True, True
            return True
        end = body + size
        if not final and end > len(text) and not (is_metadata and _START.search(text, body)):
            return self._wait(end + 4 - at)
        behind = self._behind(body, end, final)
        if behind is None:
            return self._search(at + len(_WARC))
        if behind == _UNDECIDED:
            return self._wait(left + 1)
        if self.damaged:
            self._counts[IngestReason.DAMAGED_RECORD] += 1
            self.damaged = False
        self._at, self._found = behind, True
        if is_metadata:
            self._body = text[body:end]
        return True

    def _no_record(self, final: bool) -> bool:
        left = len(self._text) - self._at
        rest = self._text[self._at : self._at + len(_WARC)]
        if not left or (final and self._found and not self._text[self._at :].strip(_PADDING)):
            self._at = len(self._text)
            return self._wait(1)
        if not final and _WARC.startswith(rest):
            return self._wait(len(_WARC))
        return self._search(self._at + 1)

    def _behind(self, body: int, end: int, final: bool) -> int | None:
        """Where the text behind a record begins; None if the record does not end at ``end``."""
        text = self._text
        if text.startswith(_USUAL_END, end):
            return end + 4
        if end > len(text):
            return None
        tail = text[end : end + _TAIL_BYTES]
        rest = tail.lstrip(b"\r\n")
        behind = end + len(tail) - len(rest)
        line_ends = text.count(b"\n", end, behind)
        if rest.startswith(_WARC) or (final and not text[behind:].strip(_PADDING)):
            return behind
        if not final and len(tail) < _TAIL_BYTES and _WARC.startswith(rest) and (rest or line_ends < 2):
            return _UNDECIDED
        # Something else comes next: that is damaged, or this record's length is wrong.
        return behind if line_ends >= 2 and not _START.search(text, body, end) else None

    def _find_start(self, final: bool) -> bool:
        """Skip to where the next record can begin; returns whether there is such a place."""
        found = _START.search(self._text, self._at)
        if found is not None:
            stop = found.start()
        else:
            stop = len(self._text) if final else max(self._at, len(self._text) - _START_BYTES)
        if not self._refused and stop > self._at:
            self.lose(stop - self._at)
        self._at = stop
        if found is None:
            return self._wait(len(self._text) - stop + 1)
        self._searching = self._refused = False
        return True

    def _search(self, at: int) -> bool:
        """Give up what is in front of ``at``, and look for a record from there on."""
        self.lose(at - self._at)
        self._at, self._searching = at, True
        return True

    def _wait(self, size: int) -> bool:
        """Go on when ``size`` bytes are held."""
        self._needed = size
        return False
