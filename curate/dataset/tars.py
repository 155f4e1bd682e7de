"""Webdataset tars: written with bytes that depend on names and contents only, read in one pass.

USTAR, no times, no owners, one mode. Names are at most 100 characters.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from curate.errors import DataError

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jfif"})

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

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()

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


def image_spans(path: Path) -> Iterator[tuple[str, int, int]]:
    """(key, offset, size) of the images of a webdataset tar on disk, in its order.

    Reads headers only: for those who fetch the bytes themselves. Gives what ``members`` gives, also of
    a tar that is cut short; archives with extended headers are left to ``tarfile``.
    """
    found = _plain_spans(path)
    for name, offset, size in _spans_by_tarfile(path) if found is None else found:
        key, _, suffix = name.rpartition("/")[2].partition(".")
        if suffix.lower() in IMAGE_SUFFIXES:
            yield key, offset, size


def _plain_spans(path: Path) -> list[tuple[str, int, int]] | None:
    """Regular members of a tar without extended headers, None when it has any."""
    spans = []
    with path.open("rb", buffering=0) as stream:
        descriptor, end = stream.fileno(), path.stat().st_size
        at = 0
        while len(head := os.pread(descriptor, BLOCK, at)) == BLOCK and head[0]:
            kind, size = head[156:157], _octal(head[124:136])
            if kind not in b"01234567\0" or size is None:
                return None
            if _octal(head[148:156]) != sum(head) - sum(head[148:156]) + 8 * ord(" "):
                break
            at += BLOCK
            if kind in b"07\0":
                if at + size > end:
                    break
                spans.append((head[:100].split(b"\0", 1)[0].decode("utf-8", "surrogateescape"), at, size))
                at += size + -size % BLOCK
    return spans


def _octal(field: bytes) -> int | None:
    """A number in a header, None when it is written in another way."""
    text = field.split(b"\0", 1)[0].strip()
    return int(text or b"0", 8) if all(48 <= c < 56 for c in text) else None


def _spans_by_tarfile(path: Path) -> Iterator[tuple[str, int, int]]:
    end = path.stat().st_size
    with contextlib.suppress(tarfile.TarError, EOFError), tarfile.open(path, mode="r:") as archive:
        while (member := archive.next()) is not None:
            _forget_headers(archive)
            if member.isfile() and not member.issparse() and member.offset_data + member.size <= end:
                yield member.name, member.offset_data, member.size


def images_of(stream: IO[bytes], uids: list[str], name: str) -> Iterator[tuple[str, str, bytes]]:
    """The images of the named samples, read only as far as the last of them when all are there.

    Args:
        stream: a seekable tar whose samples are in uid order and whose keys are uids.
        uids: which samples, ascending, each once.
        name: of the tar, for messages.

    Yields:
        uid, suffix (``jpg``), bytes, in uid order. A uid without an image member is left out.

    Raises:
        DataError: the tar is broken or not in uid order.
    """
    if not uids:
        return
    wanted = iter(uids)
    target: str | None = next(wanted)
    before, skipped = "", False
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                _forget_headers(archive)
                key, _, suffix = member.name.rpartition("/")[2].partition(".")
                if suffix not in IMAGE_SUFFIXES or not member.isreg():
                    continue
                if key < before:
                    raise DataError(f"{name}: {key} comes after {before}; its samples are not in uid order")
                before = key
                while target is not None and target < key:
                    target, skipped = next(wanted, None), True
                if target == key:
                    content = archive.extractfile(member)
                    assert content is not None
                    yield key, suffix, content.read()
                    target = next(wanted, None)
                if target is None and not skipped:
                    return  # otherwise the rest is looked through, in case it is only out of order
    except tarfile.TarError as error:
        raise DataError(f"{name}: cannot be read as a tar ({error})") from None


def _forget_headers(archive: tarfile.TarFile) -> None:
    """``tarfile`` keeps every header it has seen; a shard's would be tens of megabytes."""
    archive.__dict__["members"].clear()
