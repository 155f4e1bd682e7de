"""EXIF tags as text, from blocks that nobody has checked."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator

MAX_EXIF_BLOCK = 1 << 20
MAX_EXIF_VALUE = 256
MAX_EXIF = 16_384
"""Limits on EXIF: bytes read, characters of one value, characters of the JSON. Beyond the last, NULL."""

MAX_WORK = 1 << 20
"""Values and characters that the parser may touch. Cameras write a few thousand. Directories may overlap and
be entered many times, so a block of 60 kB can ask for minutes and gigabytes."""

_ENTRY = 50
"""What one entry costs beside its values, in the same unit."""
_TEXT = 2
_NESTED = frozenset({0x8825, 0xA005})
"""Tags that the parser follows wherever they stand: GPS and interoperability."""
_EXIF_OFFSET = 0x8769


def exif_json(block: bytes) -> str | None:
    """The tags of an EXIF block as img2dataset stores them: a JSON object of strings.

    Args:
        block: a TIFF structure, with or without the prefix ``Exif\\0\\0``.

    Returns:
        ``{}`` for a block that is not a TIFF structure; None for one that is broken, or too large, or
        built to keep a parser busy.
    """
    block = block.removeprefix(b"Exif\0\0")
    if block[:2] not in (b"II", b"MM"):
        return "{}"
    if len(block) > MAX_EXIF_BLOCK or parsing_work(block) > MAX_WORK:
        return None
    try:
        import exifread

        tags = exifread.process_file(io.BytesIO(block), details=False)
        values = {str(k): str(v).strip()[:MAX_EXIF_VALUE] for k, v in tags.items() if v is not None}
        text = json.dumps(values)
    except Exception:  # noqa: BLE001 - the parser raises anything; a broken block costs the EXIF, not the image
        return None
    return text if len(text) <= MAX_EXIF else None


def parsing_work(block: bytes) -> int:
    """How many values and characters exifread would touch; counting stops soon after `MAX_WORK`."""
    order = "<" if block[:1] == b"I" else ">"
    work = 0
    for entry, repeats in _entries(block, order):
        work += _ENTRY * repeats
        if entry is not None:
            _, kind, count, _ = entry
            # Of other types than text, the parser leaves out what has 1,000 values or more.
            work += min(count, len(block)) if kind == _TEXT else count if count < 1_000 else 0
        if work > MAX_WORK:
            break
    return work


def _entries(block: bytes, order: str) -> Iterator[tuple[tuple[int, int, int, int] | None, int]]:
    """(tag, type, count, value) of every entry the parser visits and 1, or None and a number past the end."""
    for directory in _chain(block, order):
        yield from _directory(block, order, directory, _NESTED | {_EXIF_OFFSET})


def _directory(
    block: bytes, order: str, offset: int, followed: frozenset[int]
) -> Iterator[tuple[tuple[int, int, int, int] | None, int]]:
    count = _number(block, order + "H", offset)
    yield None, 1
    for i in range(count):
        at = offset + 2 + 12 * i
        if at + 12 > len(block):
            yield None, count - i
            return
        entry = struct.unpack_from(order + "HHII", block, at)
        yield entry, 1
        if entry[0] in followed:
            inner = _NESTED if entry[0] == _EXIF_OFFSET else frozenset[int]()
            yield from _directory(block, order, entry[3], inner)


def _chain(block: bytes, order: str) -> Iterator[int]:
    """Offsets of the top directories, each once."""
    seen: set[int] = set()
    offset = _number(block, order + "I", 4)
    while offset and offset not in seen:
        seen.add(offset)
        yield offset
        offset = _number(block, order + "I", offset + 2 + 12 * _number(block, order + "H", offset))


def _number(block: bytes, form: str, at: int) -> int:
    try:
        return int(struct.unpack_from(form, block, at)[0])
    except struct.error:
        return 0
