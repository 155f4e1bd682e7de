"""Reading images out of a shard's tar in one forward pass, and writing tars with fixed bytes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from curate.errors import DataError

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp"})


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


class TarWriter:
    """A tar whose bytes depend on nothing but names and contents: no times, owners or modes.

    Names are at most 100 characters (USTAR).
    """

    def __init__(self, path: Path) -> None:
        self._archive = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def add(self, name: str, content: bytes) -> None:
        """Append one file."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o644
        self._archive.addfile(info, io.BytesIO(content))
        _forget_headers(self._archive)


def _forget_headers(archive: tarfile.TarFile) -> None:
    """``tarfile`` keeps every header it has seen; a shard's would be tens of megabytes."""
    archive.__dict__["members"].clear()
