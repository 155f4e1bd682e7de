"""Files that a config names and that are not part of the workspace: weights, word lists, target sets.

Names are local paths (``~`` is expanded) or fsspec URLs. Nothing is answered from a cache of listings.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow.parquet as pq

from curate.dataset.listing import is_path, last_change, open_fs
from curate.errors import UserError, reaching, storage_text

if TYPE_CHECKING:
    import pyarrow.dataset as ds


def digest(url: str, place: str) -> str:
    """128-bit digest of a file's bytes; read once per process as long as nothing says that it has changed.

    Args:
        url: of the file.
        place: the config key that names it, for messages.

    Raises:
        UserError: no such file.
    """
    fs, path = _find_file(url, place)
    with reaching(f"{place}: {url}"):
        info = fs.info(path)
    changed = last_change(info)
    # A clock ticks every few milliseconds: what was written just now may be written again in this tick.
    known = changed != "" and (not isinstance(changed, float) or time.time() - changed > 2)
    return (_digest if known else _digest.__wrapped__)(url, int(info["size"] or 0), str(changed))


def check_digest(url: str, place: str, expected: str) -> None:
    """Refuse a file that is not the one that the driver saw.

    Raises:
        UserError: no such file, or its digest is another.
    """
    if digest(url, place) != expected:
        raise _changed(url, place)


def read(url: str, place: str, expected: str | None = None) -> bytes:
    """A whole file.

    Raises:
        UserError: no such file, or not the bytes whose digest is ``expected`` (a worker that sees
            another file than the driver).
    """
    fs, path = _find_file(url, place)
    with reaching(f"{place}: {url}"):
        data: bytes = fs.cat_file(path)
    if expected is not None and hashlib.blake2b(data, digest_size=16).hexdigest() != expected:
        raise _changed(url, place)
    return data


@contextlib.contextmanager
def open_file(url: str) -> Iterator[IO[bytes]]:
    """A file to read from.

    Raises:
        UserError: nothing knows such a URL.
        OSError: what the disk or the store says.
    """
    fs, path = open_fs(url, {})
    with fs.open(path, "rb") as stream:
        yield stream


def find_files(url: str, place: str, ending: str) -> list[str]:
    """The files that a name stands for: a file; what matches a glob; of a folder all with this ending.

    Args:
        url: of the file, the folder (with all folders below it) or the glob.
        place: the config key, for messages.
        ending: with which a file in a folder has to end, ``.parquet``.

    Returns:
        Absolute paths or URLs, sorted.

    Raises:
        UserError: nothing knows such a URL, or the store cannot be read.
    """
    fs, path = _open(url, place)
    with reaching(f"{place}: {url}"):
        if fs.isdir(path):
            found = [p for p in fs.find(path) if p.endswith(ending)]
        elif fs.isfile(path):
            found = [path]
        else:
            found = [p for p in fs.glob(path) if fs.isfile(p)]
    return sorted(_name(fs, p) for p in found)


def list_folder(url: str, place: str) -> dict[str, str] | None:
    """Name → absolute path or URL of whatever lies directly in a folder, by name; None for no folder.

    Raises:
        UserError: nothing knows such a URL, or the store cannot be read.
    """
    fs, path = _open(url, place)
    with reaching(f"{place}: {url}"):
        if not fs.isdir(path):
            return None
        inside = (str(p).rstrip("/") for p in fs.ls(path, detail=False))
        return dict(sorted((p.rpartition("/")[2], _name(fs, p)) for p in inside if p != path.rstrip("/")))


def absolute(url: str, place: str) -> str:
    """The absolute path, or the URL, of what may be a path from here. Raises UserError for no such URL."""
    return _name(*_open(url, place))


def local_path(url: str) -> Path | None:
    """Where a file lies on this machine's disks, None for a file elsewhere or none at all."""
    if not is_path(url):
        from fsspec.implementations.local import LocalFileSystem

        fs, url = open_fs(url, {})
        if not isinstance(fs, LocalFileSystem):
            return None
    path = Path(url)
    return path if path.is_file() else None


def open_parquet(
    url: str, options: Mapping[str, Any] | None = None, metadata: pq.FileMetaData | None = None
) -> pq.ParquetFile:
    """A parquet file to read from; close it.

    Args:
        url: of the file.
        options: of fsspec's filesystem.
        metadata: its footer, when it has been read before.

    Raises:
        OSError, pa.ArrowException: what the disk, the store or pyarrow says.
    """
    if is_path(url):
        return pq.ParquetFile(url, metadata=metadata)
    from fsspec.implementations.local import LocalFileSystem

    fs, path = open_fs(url, options or {})
    source = path if isinstance(fs, LocalFileSystem) else fs.open(path, "rb")
    return pq.ParquetFile(source, metadata=metadata)


def parquet_dataset(url: str) -> ds.Dataset:
    """A parquet file to scan.

    Raises:
        OSError, pa.ArrowException: what the disk, the store or pyarrow says.
    """
    import pyarrow.dataset as ds

    if is_path(url):
        return ds.dataset(url, format="parquet")
    fs, path = open_fs(url, {})
    return ds.dataset(path, format="parquet", filesystem=fs)


def _open(url: str, place: str) -> tuple[Any, str]:
    try:
        return open_fs(url, {})
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _name(fs: Any, path: str) -> str:
    """What other functions of this module find it by, whatever the current folder is."""
    from fsspec.implementations.local import LocalFileSystem

    return str(path) if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _find_file(url: str, place: str) -> tuple[Any, str]:
    fs, path = _open(url, place)
    with reaching(f"{place}: {url}"):
        try:
            kind = fs.info(path)["type"]
        except FileNotFoundError as error:
            # What a web server's filesystem calls not found may be that there is no server.
            cause = error.__cause__
            here = "" if "://" in url else f" (looked for {path})"
            why = f"no such file{here}" if cause is None else f"no such file ({storage_text(cause)})"
            raise UserError(f"{place}: {url}: {why}") from None
    if kind != "file":
        raise UserError(f"{place}: {url}: is a folder, not a file")
    return fs, path


def _changed(url: str, place: str) -> UserError:
    return UserError(f"{place}: {url} has changed, or is another file on this worker; run again")


@functools.lru_cache(maxsize=65_536)
def _digest(url: str, size: int, changed: str) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    with open_file(url) as stream:
        while block := stream.read(1 << 22):
            hasher.update(block)
    return hasher.hexdigest()
