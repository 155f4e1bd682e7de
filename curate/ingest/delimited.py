"""Lines and delimited records of text files that nobody checked: nothing in them is fatal, all is counted."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator

from curate.ingest.unpack import BYTES_LOST, Gap, Readable, unpack
from curate.reasons import IngestReason

MAX_LINE_BYTES = 16 << 20
"""A longer line is one unreadable record."""
MAX_QUOTED_LINES = 64
"""A quoted field may go on over this many lines; beyond it the quote is taken for a stray one."""


class Pushback:
    """Lines that can be handed back."""

    def __init__(self, lines: Iterator[bytes | None]) -> None:
        self._lines = lines
        self._back: list[bytes | None] = []

    def exhausted(self) -> bool:
        """Whether there is no further line."""
        if not self._back:
            try:
                self._back.append(next(self._lines))
            except StopIteration:
                return True
        return False

    def pop(self) -> bytes | None:
        """The next line."""
        return self._back.pop() if self._back else next(self._lines)

    def push(self, lines: Iterable[bytes | None]) -> None:
        """Hand lines back, to be popped again in the order given."""
        self._back.extend(reversed(list(lines)))


def split_record(lines: Pushback, delimiter: str, width: int | None) -> list[str] | None:
    """The fields of the next record; [] for an empty line, None where there are not ``width`` fields.

    A field in quotes may hold delimiters and newlines. Real files also have stray quotes, which to a plain
    csv reader swallow everything up to the next one; here a record that does not close its quotes within
    :data:`MAX_QUOTED_LINES` is read again as one line whose quotes are ordinary characters.
    """
    raw = _decode(lines.pop())
    if raw is None:
        return None
    line = raw.removesuffix("\r")
    if not line:
        return []
    if '"' not in line:
        return _of_width(line.split(delimiter), width)
    fields = _of_width(_strict(line, delimiter), width)
    if fields is not None:
        return fields
    taken: list[bytes | None] = []
    joined = raw
    while not lines.exhausted() and len(taken) < MAX_QUOTED_LINES:
        more = lines.pop()
        taken.append(more)
        text = _decode(more)
        if text is None or len(joined) + len(text) > MAX_LINE_BYTES:
            break
        joined += "\n" + text
        if '"' in text and joined.count('"') % 2 == 0:
            fields = _of_width(_strict(joined.removesuffix("\r"), delimiter), width)
            if fields is not None:
                return fields
    lines.push(taken)
    return _of_width(line.split(delimiter), width)


def _of_width(fields: list[str] | None, width: int | None) -> list[str] | None:
    return fields if fields is not None and width in (None, len(fields)) else None


def _strict(text: str, delimiter: str) -> list[str] | None:
    try:
        # As one "line": the reader keeps newlines inside quotes and rejects those outside.
        records = list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return records[0] if len(records) == 1 else None


def _decode(line: bytes | None) -> str | None:
    try:
        return None if line is None else line.decode("utf-8")
    except UnicodeDecodeError:
        return None


def iter_lines(stream: Readable, counts: Counter[str], stats: Counter[str]) -> Iterator[bytes | None]:
    """Lines of a plain or gzip file without their newline; None for one longer than :data:`MAX_LINE_BYTES`.

    Damage of a gzip file costs the lines that it touches and what follows of its member. It adds one
    ``damaged_record`` to ``counts``, or one ``truncated_input`` if it goes on to the end of the file, and its
    length to ``stats["bytes_lost"]``. Of a damaged member the lines in front of the place where it does not
    unpack are given out.
    """
    rest = b""
    overlong = damaged = headless = False
    for piece in unpack(stream, salvage=True):
        if isinstance(piece, Gap):
            stats[BYTES_LOST] += piece.size + len(rest)
            rest, overlong, damaged, headless = b"", False, True, True
            continue
        if damaged and piece.data:
            counts[IngestReason.DAMAGED_RECORD] += 1
            damaged = False
        parts = (rest + piece.data).split(b"\n")
        rest = parts.pop()
        if headless:  # the member may begin within a line
            stats[BYTES_LOST] += len(parts[0] if parts else rest)
            if not parts:
                rest = b""
                continue
            parts, headless = parts[1:], False
        for part in parts:
            yield None if overlong or len(part) > MAX_LINE_BYTES else part
            overlong = False
        if len(rest) > MAX_LINE_BYTES:
            rest, overlong = b"", True
    if damaged:
        counts[IngestReason.TRUNCATED_INPUT] += 1
    elif rest or overlong:
        yield None if overlong else rest
