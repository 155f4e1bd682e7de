"""A tar whose bytes depend on names and contents only: USTAR, no times, no owners, one mode."""

from __future__ import annotations

from typing import IO

BLOCK = 512
RECORD = 20 * BLOCK
_MAX_NAME = 100
_MAX_SIZE = 8**11 - 1

_PREFIX = b"0000444\x00" + b"0000000\x00" * 2
_SUFFIX = (
    b"0"  # regular file
    + bytes(100)  # no link
    + b"ustar\x0000"
    + bytes(512 - 265)  # no owner names, device numbers, prefix
)


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a member: regular file, mode 0444, uid, gid and mtime 0.

    Raises:
        ValueError: the name or size does not fit USTAR.
    """
    raw = name.encode()
    if not 0 < len(raw) <= _MAX_NAME or not 0 <= size <= _MAX_SIZE:
        raise ValueError(f"'{name}' of {size} bytes does not fit a USTAR header")
    head = raw.ljust(_MAX_NAME, b"\0") + _PREFIX + b"%011o\0" % size + b"00000000000\0"
    checksum = sum(head) + 8 * ord(" ") + sum(_SUFFIX)
    return head + b"%06o\0 " % checksum + _SUFFIX


class TarWriter:
    """Appends members to a stream; `close` writes the end of the archive and leaves the stream open."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._written = 0

    def add(self, name: str, data: bytes) -> None:
        """Append one regular file."""
        padding = bytes(-len(data) % BLOCK)
        self._stream.write(header(name, len(data)) + data + padding)
        self._written += BLOCK + len(data) + len(padding)

    def close(self) -> None:
        """Two empty blocks, filled up to a whole record."""
        end = 2 * BLOCK
        end += -(self._written + end) % RECORD
        self._stream.write(bytes(end))
