"""A place that fsspec knows: S3 and other object stores, memory, a server's disk."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq

from curate.dataset.stores.protocol import Store


class RemoteStore:
    """Files are made in a local temporary and uploaded in one piece. Implements ``Store``.

    Nothing is ever answered from a cache of listings: a run that goes on after a kill would take the shards
    that such a cache lacks for shards that were never made. There are no locks.

    Args:
        filesystem: of fsspec, opened without a cache of listings.
        root: the store's path there.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self.root: Path | None = None
        self._fs = filesystem
        self._root = root.rstrip("/")

    def location(self, path: str) -> str:
        """A URL."""
        return str(self._fs.unstrip_protocol(self._full(path)))

    def exists(self, path: str) -> bool:
        """Whether an object or a prefix is there."""
        return bool(self._fs.exists(self._full(path)))

    def open(self, path: str) -> IO[bytes]:
        """A stream to read from."""
        stream: IO[bytes] = self._fs.open(self._full(path), "rb")
        return stream

    @contextlib.contextmanager
    def parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """Nothing is read ahead: no thread of Arrow's holds the stream when the process ends."""
        with self.open(path) as stream:
            yield pq.ParquetFile(stream, pre_buffer=False)

    def sizes(self, folder: str) -> dict[str, int]:
        """Path → bytes of the objects directly below a prefix."""
        prefix = f"{folder}/" if folder else ""
        entries = self._entries(folder)
        return {f"{prefix}{name}": int(e["size"] or 0) for name, e in entries if e["type"] == "file"}

    def folders(self, folder: str) -> list[str]:
        """Names of the prefixes directly below a prefix."""
        return sorted(name for name, entry in self._entries(folder) if entry["type"] == "directory")

    def below(self, folder: str) -> list[str]:
        """Objects at any depth."""
        prefix = self._full(folder).rstrip("/") + "/"
        return [str(path).removeprefix(prefix) for path in self._fs.find(prefix)]

    def remove(self, path: str) -> None:
        """Remove an object."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def remove_tree(self, path: str) -> None:
        """Remove all objects below a prefix."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._full(path), recursive=True)

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """The temporary lies among this machine's."""
        with tempfile.TemporaryDirectory(prefix="curate-", ignore_cleanup_errors=True) as folder:
            temporary = Path(folder) / path.rpartition("/")[2]
            yield temporary
            self._fs.makedirs(self._full(path.rpartition("/")[0]), exist_ok=True)
            self._fs.put_file(str(temporary), self._full(path))

    def log(self, path: str) -> IO[bytes]:
        """An object that cannot grow is there when the stream is closed."""
        self._fs.makedirs(self._full(path.rpartition("/")[0]), exist_ok=True)
        stream: IO[bytes] = self._fs.open(self._full(path), "wb")
        return stream

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A copy."""
        folder = Path(tempfile.mkdtemp(prefix="curate-"))
        try:
            copy = folder / path.rpartition("/")[2]
            self._fs.get_file(self._full(path), str(copy))
            yield copy
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Among this machine's temporaries."""
        with tempfile.TemporaryDirectory(prefix="curate-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def clear_temporaries(self) -> None:
        """There are none in the store."""

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[bool]:
        """Nobody is kept out."""
        yield True

    def free_bytes(self) -> int | None:
        """Nobody can say."""
        return None

    def for_duckdb(self, connection: Any, path: str) -> str:
        """The connection reads through the same filesystem."""
        protocol = self._fs.protocol
        name = protocol if isinstance(protocol, str) else protocol[0]
        if not connection.filesystem_is_registered(name):
            connection.register_filesystem(self._fs)
        return f"{name}://{self._full(path)}"

    def is_same(self, other: Store) -> bool:
        """Whether both are one path of one kind of filesystem."""
        return (
            isinstance(other, RemoteStore) and type(self._fs) is type(other._fs) and self._root == other._root
        )

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _entries(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        try:
            entries = self._fs.ls(self._full(folder), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        # A store may name the prefix itself among what lies below it.
        own = self._full(folder).strip("/")
        named = ((str(entry["name"]).strip("/"), entry) for entry in entries)
        return [(name.rpartition("/")[2], entry) for name, entry in named if name != own]
