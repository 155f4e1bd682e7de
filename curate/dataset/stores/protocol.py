"""What a workspace asks of the place where its files lie.

Paths are relative to the store, with forward slashes and without a leading one. Two guarantees carry
everything that is built on a store: a file appears under its name whole or not at all, and what a listing
says is true now, also about files that another process has written a moment ago. ``tests/contract`` checks
both, and every sentence below, for any implementation.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow.parquet as pq


class Store(Protocol):
    """Files behind one URL."""

    root: Path | None
    """The folder of a store on this machine, whose files can be mapped; None for any other."""

    def location(self, path: str) -> str:
        """What a person would type to get at a file: an absolute path, or a URL."""

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there; the empty path is the store itself."""

    def open(self, path: str) -> IO[bytes]:
        """A seekable stream to read from. Raises FileNotFoundError."""

    def parquet(self, path: str) -> AbstractContextManager[pq.ParquetFile]:
        """A parquet file. Raises FileNotFoundError, and what pyarrow raises of a broken one."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Path → bytes of the files directly in a folder; empty when there is no such folder."""

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in a folder, sorted; none when there is no such folder."""

    def below(self, folder: str) -> list[str]:
        """Paths, relative to a folder, of all files in it and below; none when there is no such folder."""

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""

    def remove_tree(self, path: str) -> None:
        """Remove a folder with all it holds, or a file; one that is not there is fine."""

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """A local path to write to; on a clean exit the file is at ``path``, whole and lasting.

        An exception leaves nothing behind, and what was at ``path`` before stays.
        """

    def log(self, path: str) -> IO[bytes]:
        """A stream to a file that need not ever be whole; where the store can, each write is seen at once."""

    def local(self, path: str) -> AbstractContextManager[Path]:
        """A local path to read from: the file itself, or a copy that is removed afterwards.

        Raises FileNotFoundError.
        """

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty local folder for what a process spills, removed afterwards.

        In the store's own temporaries where it is local: only for who holds the lock.
        """

    def clear_temporaries(self) -> None:
        """Remove what killed processes left half-written. Only for who holds the lock."""

    def lock(self, path: str) -> AbstractContextManager[bool]:
        """Hold the store for this process, if the store knows locks; the lock ends with the process.

        Gives False when another process holds it.
        """

    def free_bytes(self) -> int | None:
        """Room that is left; None where nobody can say."""

    def for_duckdb(self, connection: Any, path: str) -> str:
        """A path, or pattern with ``*``, as a DuckDB connection can read it."""

    def is_same(self, other: Store) -> bool:
        """Whether both are one place."""
