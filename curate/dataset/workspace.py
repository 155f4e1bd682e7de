"""One fsspec URL that holds everything, and the only ways to write into it.

A file appears under its final name whole or not at all, whatever the store: see ``stores.protocol``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import layout
from curate.dataset.stores.open import open_store
from curate.dataset.stores.protocol import Store
from curate.errors import DataError, UserError


class FileRef(msgspec.Struct, frozen=True, gc=False):
    """A file of the workspace and what it contained when it was committed."""

    path: str
    size: int
    digest: str


class Workspace:
    """A folder behind an fsspec URL. Paths are relative, with forward slashes. Picklable."""

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None) -> None:
        self.url = url
        self.options = dict(storage_options or {})

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options}

    def __repr__(self) -> str:
        return f"Workspace({self.url!r})"

    @cached_property
    def store(self) -> Store:
        """Where the files lie. Raises UserError when nothing knows the URL."""
        return open_store(self.url, self.options)

    @property
    def root(self) -> Path | None:
        """The folder of a workspace on this machine; None for any other."""
        return self.store.root

    def is_same(self, other: Workspace) -> bool:
        """Whether both are one folder."""
        return self.store.is_same(other.store)

    def location(self, path: str = "") -> str:
        """What a person would type to get at a file of it: an absolute path, or a URL."""
        return self.store.location(path)

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return self.store.exists(path)

    def open(self, path: str) -> IO[bytes]:
        """Open for reading. Raises DataError when the file is not there."""
        try:
            return self.store.open(path)
        except FileNotFoundError:
            raise self._missing(path) from None

    def _missing(self, path: str) -> DataError:
        return DataError(f"{self.url}/{path}: no such file in the workspace")

    def read_bytes(self, path: str) -> bytes:
        """A whole small file."""
        with self.open(path) as stream:
            return stream.read()

    def read_json(self, path: str) -> Any:
        """A JSON file. Raises DataError when it does not parse."""
        try:
            return json.loads(self.read_bytes(path))
        except ValueError as error:
            raise DataError(f"{self.url}/{path}: not valid JSON ({error})") from None

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Columns of a parquet file. Raises DataError when it is missing or broken, or lacks one of them."""
        with self.parquet(path) as file:
            missing = set(columns or ()).difference(file.schema_arrow.names)
            if missing:
                raise DataError(f"{self.url}/{path}: has no column '{min(missing)}'")
            try:
                return file.read(columns, use_threads=self.root is not None)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{self.url}/{path}: cannot be read as parquet ({error})") from None

    @contextlib.contextmanager
    def parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """A parquet file. Raises DataError when it is missing or broken."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self.store.parquet(path))
            except FileNotFoundError:
                raise self._missing(path) from None
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{self.url}/{path}: cannot be read as parquet ({error})") from None
            yield file

    def sizes(self, folder: str) -> dict[str, int]:
        """Relative path → bytes of the files directly in a folder; empty when there is no folder."""
        return self.store.sizes(folder)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in a folder, sorted; none when there is no folder."""
        return self.store.folders(folder)

    def below(self, folder: str) -> list[str]:
        """Paths, relative to a folder, of all files in it and below; none when there is no folder."""
        return self.store.below(folder)

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        self.store.remove(path)

    def remove_tree(self, path: str) -> None:
        """Remove a folder with all it holds; one that is not there is fine."""
        self.store.remove_tree(path)

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """A local path to write to; on a clean exit the file is at ``path``, whole and synced.

        An exception leaves nothing behind.
        """
        return self.store.writing(path)

    def log(self, path: str) -> IO[bytes]:
        """A file that grows in place under its final name, and need not ever be whole."""
        return self.store.log(path)

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A local path to read from: the file itself, or a copy that is removed afterwards."""
        with contextlib.ExitStack() as stack:
            try:
                found = stack.enter_context(self.store.local(path))
            except FileNotFoundError:
                raise self._missing(path) from None
            yield found

    @contextlib.contextmanager
    def verified(self, ref: FileRef) -> Iterator[Path]:
        """A local path to a committed file, after its bytes were compared with the record.

        For whoever copies bytes without looking at them: about a second a gigabyte.

        Raises:
            DataError: it is not there, or not what was committed.
        """
        with self.local(ref.path) as path:
            if ref_of(path, ref.path) != ref:
                raise DataError(
                    f"{self.url}/{ref.path}: other bytes than were committed; remove it, and run the stage "
                    "that makes it again (`curate verify --deep` finds all such files)"
                )
            yield path

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty local folder for what a process spills, removed afterwards.

        Only for who holds the workspace's lock: a run clears the temporaries when it begins.
        """
        return self.store.scratch()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Only one run at a time, on a store that knows locks.

        Raises:
            UserError: another process holds it, or nothing can be written there.
        """
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(self.store.lock(layout.LOCK))
            except OSError as error:
                raise UserError(f"workspace: cannot write to '{self.url}': {error.strerror}") from None
            if not held:
                raise UserError(f"{self.url}: another run is working on this workspace")
            yield

    def write_bytes(self, path: str, data: bytes) -> FileRef:
        """Commit a small file."""
        with self.writing(path) as temporary:
            temporary.write_bytes(data)
        return FileRef(path, len(data), _hasher(data).hexdigest())

    def write_if_changed(self, path: str, data: bytes) -> None:
        """Commit a small file unless it already holds these bytes."""
        if not (self.exists(path) and self.read_bytes(path) == data):
            self.write_bytes(path, data)

    def write_json(self, path: str, value: Any) -> FileRef:
        """Commit a JSON file, keys in the order given, one trailing newline."""
        return self.write_bytes(path, json_bytes(value))

    def write_table(self, path: str, table: pa.Table, row_group_rows: int = 65_536) -> FileRef:
        """Commit a parquet file (zstd)."""
        with self.writing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_rows)
            return ref_of(temporary, path)

    def clear_temporaries(self) -> None:
        """Remove what killed processes left half-written. Only under the workspace's lock."""
        self.store.clear_temporaries()


def json_bytes(value: Any) -> bytes:
    """Plain values as indented JSON, keys in the order given, one trailing newline."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def ref_of(local: Path, path: str) -> FileRef:
    """The FileRef of a local file that is about to be committed as ``path``."""
    with local.open("rb") as stream:
        return FileRef(path, local.stat().st_size, digest_of(stream))


def digest_of(stream: IO[bytes]) -> str:
    """128-bit digest of what is left of a stream, as records have it."""
    hasher = _hasher()
    while block := stream.read(1 << 20):
        hasher.update(block)
    return hasher.hexdigest()


def _hasher(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=16)
