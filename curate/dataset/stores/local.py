"""A folder of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq

from curate.dataset.stores.protocol import Store

TEMPORARIES = ".curate/tmp"


class LocalStore:
    """Files are written beside their place, synced and renamed. Implements ``Store``.

    Args:
        root: absolute; need not exist yet.
    """

    def __init__(self, root: str) -> None:
        self.root: Path | None = Path(root)
        self._root = root.rstrip("/")

    def location(self, path: str) -> str:
        """An absolute path."""
        return f"{self._root}/{path}" if path else self._root or "/"

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        # Not pathlib's: where it may not look, it raises.
        return os.path.exists(self.location(path))  # noqa: PTH110

    def open(self, path: str) -> IO[bytes]:
        """A stream to read from."""
        return Path(self.location(path)).open("rb")

    @contextlib.contextmanager
    def parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """Opened by Arrow: its threads would abort a process that ends while they hold a stream of ours."""
        with pq.ParquetFile(self.location(path)) as file:
            yield file

    def sizes(self, folder: str) -> dict[str, int]:
        """Path → bytes of the files in a folder; one that goes meanwhile is left out."""
        prefix = f"{folder}/" if folder else ""
        found = {}
        for entry in self._entries(folder):
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    found[f"{prefix}{entry.name}"] = entry.stat(follow_symlinks=False).st_size
        return found

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder."""
        return sorted(entry.name for entry in self._entries(folder) if entry.is_dir())

    def below(self, folder: str) -> list[str]:
        """Files at any depth."""
        full = Path(self.location(folder))
        return [path.relative_to(full).as_posix() for path in full.rglob("*") if path.is_file()]

    def remove(self, path: str) -> None:
        """Remove a file."""
        Path(self.location(path)).unlink(missing_ok=True)

    def remove_tree(self, path: str) -> None:
        """Remove a folder or a file."""
        full = Path(self.location(path))
        with contextlib.suppress(FileNotFoundError):
            if full.is_dir() and not full.is_symlink():
                shutil.rmtree(full)
            else:
                full.unlink()

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """The temporary lies in the store, so that the rename does not cross filesystems."""
        temporary = self._temporary(path.rpartition("/")[2])
        try:
            yield temporary
            _sync(temporary)
            final = Path(self.location(path))
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(final)
            _sync(final.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def log(self, path: str) -> IO[bytes]:
        """Without a buffer: each write is in the file at once."""
        final = Path(self.location(path))
        final.parent.mkdir(parents=True, exist_ok=True)
        return final.open("wb", buffering=0)

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """The file itself."""
        full = Path(self.location(path))
        if not full.exists():
            raise FileNotFoundError(str(full))
        yield full

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Among the temporaries."""
        folder = self._temporary("scratch")
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clear_temporaries(self) -> None:
        """Remove the folder of temporaries."""
        shutil.rmtree(self.location(TEMPORARIES), ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[bool]:
        """By ``flock``: the system gives it back when the process ends, however it ends."""
        full = Path(self.location(path))
        full.parent.mkdir(parents=True, exist_ok=True)
        with full.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def free_bytes(self) -> int | None:
        """Of the disk that the nearest existing folder is on."""
        folder = Path(self.location(""))
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def for_duckdb(self, connection: Any, path: str) -> str:
        """DuckDB reads local files itself."""
        return self.location(path)

    def is_same(self, other: Store) -> bool:
        """Whether both are one folder, by whatever path."""
        return other.root is not None and os.path.realpath(self.location("")) == os.path.realpath(other.root)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.location(folder)) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _temporary(self, name: str) -> Path:
        folder = Path(self.location(TEMPORARIES))
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{uuid.uuid4().hex}-{name}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
