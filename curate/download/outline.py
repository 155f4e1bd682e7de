"""Which files are safe to decode in a thread, and how large they are.

A thread cannot be stopped, and it shares its memory with all others. So it decodes only what size bounds:
JPEG, PNG, GIF and WebP whose structure is usual, where the decoder's memory and work are a small multiple
of the pixels. Everything else, from rare formats to a PNG with a hundred compressed texts, is for
`curate.download.sandbox`. No verdict is made here: that is Pillow's, wherever it decodes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAX_WORK = 200_000_000
"""Pixels times scans; about two seconds of decoding."""

MAX_SEGMENTS = 200
"""Of a JPEG before its first scan. Pillow joins segments of one kind in quadratic time."""
MAX_CHUNKS = 10_000
"""Of a PNG; each costs a few microseconds of Python."""
MAX_TEXTS = 4
"""Compressed texts and profiles of a PNG. Each may inflate to 1 MiB, and as text take 4 MiB."""
MAX_TEXT_BYTES = 1 << 20
"""All text of a PNG as it is in the file."""
MAX_BLOCKS = 4_000
"""Of a GIF before its first frame, where comments and metadata come in pieces of 255 bytes."""


class Outline(NamedTuple):
    """What the header of a file of usual structure says."""

    width: int
    height: int
    scans: int = 1
    """Passes over the pixels, at most: so many scans a JPEG has, or bytes that look like one."""

    @property
    def in_thread(self) -> bool:
        """Whether decoding is little enough work for a thread that cannot be stopped."""
        return self.width * self.height * self.scans <= MAX_WORK


def outline(body: bytes) -> Outline | None:
    """Read the header; None for a file of another format, or of unusual structure."""
    try:
        if body.startswith(b"\xff\xd8\xff"):
            return _jpeg(body)
        if body.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(body)
        if body.startswith((b"GIF87a", b"GIF89a")):
            return _gif(body)
        if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
            return _webp(body)
    except (struct.error, IndexError):
        pass  # ends within its header
    return None


def _jpeg(body: bytes) -> Outline | None:
    at, width, height = 2, 0, 0
    for _ in range(MAX_SEGMENTS):
        if body[at : at + 2] == b"\xff\xff":  # a fill byte
            at += 1
            continue
        start, marker, length = struct.unpack_from(">BBH", body, at)
        if start != 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            return None
        if marker == 0xDA:
            return Outline(width, height, body.count(b"\xff\xda", at)) if width else None
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack_from(">HH", body, at + 5)
        elif marker not in (0xC4, 0xDB, 0xDD, 0xFE) and not 0xE0 <= marker <= 0xEF:
            return None  # lossless, hierarchical and other rarities
        at += 2 + length
    return None


def _png(body: bytes) -> Outline | None:
    at, texts, text_bytes = 8, 0, 0
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(body):
            break
        length, kind = struct.unpack_from(">I4s", body, at)
        if kind == b"IEND":
            break
        if kind in (b"zTXt", b"iTXt", b"tEXt", b"iCCP"):
            texts += kind != b"tEXt"
            text_bytes += length
            if texts > MAX_TEXTS or text_bytes > MAX_TEXT_BYTES:
                return None
        at += 12 + length
    else:
        return None
    length, kind, width, height = struct.unpack_from(">I4sII", body, 8)
    return Outline(width, height) if kind == b"IHDR" else None


def _gif(body: bytes) -> Outline | None:
    width, height, flags = struct.unpack_from("<HHB", body, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    in_extension = False
    for _ in range(MAX_BLOCKS):
        if in_extension:
            in_extension = body[at] > 0
            at += 1 + body[at]
        elif body[at] == 0x21:
            in_extension = True
            at += 2
        elif body[at] == 0x2C:
            left, top, wide, high = struct.unpack_from("<HHHH", body, at + 1)
            return Outline(max(width, left + wide), max(height, top + high))
        else:
            return None
    return None


def _webp(body: bytes) -> Outline | None:
    kind = body[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(body[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (n & 0x3FFF for n in struct.unpack_from("<HH", body, 26))
    else:
        return None
    return Outline(width, height) if len(body) >= 30 else None
