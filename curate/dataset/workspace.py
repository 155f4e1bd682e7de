"""One fsspec URL that holds everything, and the only ways to write into it.

A file appears under its final name whole or not at all: it is written to a temporary name, synced
and renamed; on stores without rename it is uploaded from a local temporary in one piece.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import DataError, UserError

TEMP = ".curate/tmp"


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
    def _target(self) -> tuple[Any, str]:
        # fsspec brings asyncio; a run on a local folder starts sooner without.
        import fsspec

        try:
            fs, root = fsspec.core.url_to_fs(self.url, **self.options)
        except (ValueError, ImportError) as error:
            raise UserError(f"workspace: cannot open '{self.url}': {error}") from None
        return fs, str(root).rstrip("/")

    @property
    def fs(self) -> Any:
        """The fsspec filesystem; files of a local folder need none."""
        return self._target[0]

    @cached_property
    def _root(self) -> str:
        return _absolute(self.url) if self._is_path else self._target[1]

    @property
    def _is_path(self) -> bool:
        """Whether the URL is nothing but a path."""
        return not (":" in self.url or self.url.startswith("~") or "protocol" in self.options)

    @cached_property
    def is_local(self) -> bool:
        """Whether files can be renamed and memory-mapped."""
        if self._is_path:
            return True
        from fsspec.implementations.local import LocalFileSystem

        return isinstance(self.fs, LocalFileSystem)

    def is_same(self, other: Workspace) -> bool:
        """Whether both are one folder."""
        alike = (self.is_local and other.is_local) or type(self.fs) is type(other.fs)
        return alike and self.full("") == other.full("")

    def full(self, path: str) -> str:
        """The path as the filesystem knows it."""
        return f"{self._root}/{path}" if path else self._root

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        full = self.full(path)
        # Not pathlib's: where it may not look, it raises.
        return os.path.exists(full) if self.is_local else bool(self.fs.exists(full))  # noqa: PTH110

    def open(self, path: str) -> IO[bytes]:
        """Open for reading. Raises DataError when the file is not there."""
        full = self.full(path)
        try:
            return Path(full).open("rb") if self.is_local else self.fs.open(full, "rb")
        except FileNotFoundError:
            raise DataError(f"{self.url}/{path}: no such file in the workspace") from None

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
                return file.read(columns, use_threads=self.is_local)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{self.url}/{path}: cannot be read as parquet ({error})") from None

    @contextlib.contextmanager
    def parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """A parquet file. Raises DataError when it is missing or broken.

        A local file is opened by Arrow itself, and of others nothing is read ahead: a thread of Arrow's that
        lets go of a Python file while the process ends would abort it.
        """
        with contextlib.ExitStack() as stack:
            try:
                if self.is_local:
                    file = stack.enter_context(pq.ParquetFile(self.full(path)))
                else:
                    file = pq.ParquetFile(stack.enter_context(self.open(path)), pre_buffer=False)
            except FileNotFoundError:
                raise DataError(f"{self.url}/{path}: no such file in the workspace") from None
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{self.url}/{path}: cannot be read as parquet ({error})") from None
            yield file

    def sizes(self, folder: str) -> dict[str, int]:
        """Relative path → bytes of the files directly in a folder; empty when there is no folder."""
        prefix = f"{folder}/" if folder else ""
        try:
            if self.is_local:
                return {f"{prefix}{name}": size for name, size in _files(self.full(folder))}
            entries = self.fs.ls(self.full(folder), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {
            prefix + e["name"].rstrip("/").rsplit("/", 1)[-1]: int(e["size"] or 0)
            for e in entries
            if e["type"] == "file"
        }

    def below(self, folder: str) -> list[str]:
        """Paths, relative to a folder, of all files in it and below; none when there is no folder."""
        full = self.full(folder)
        if self.is_local:
            return [p.relative_to(full).as_posix() for p in Path(full).rglob("*") if p.is_file()]
        return [str(path).split(f"{folder}/", 1)[-1] for path in self.fs.find(full)]

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        with contextlib.suppress(FileNotFoundError):
            if self.is_local:
                Path(self.full(path)).unlink()
            else:
                self.fs.rm_file(self.full(path))

    def remove_tree(self, path: str) -> None:
        """Remove a folder with all it holds; one that is not there is fine."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.full(path), recursive=True)

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """A local path to write to; on a clean exit the file is at ``path``, whole and synced.

        An exception leaves nothing behind. The temporary lies in the workspace when that is local,
        so that the rename does not cross filesystems.
        """
        name = f"{uuid.uuid4().hex}-{path.rsplit('/', 1)[-1]}"
        if self.is_local:
            folder = Path(self.full(TEMP))
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / name
        else:
            temporary = Path(tempfile.mkdtemp(prefix="curate-")) / name
        try:
            yield temporary
            if self.is_local:
                _sync(temporary)
                final = Path(self.full(path))
                final.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(final)
                _sync(final.parent)
            else:
                self.fs.put_file(str(temporary), self.full(path))
        finally:
            temporary.unlink(missing_ok=True)
            if not self.is_local:
                shutil.rmtree(temporary.parent, ignore_errors=True)

    def log(self, path: str) -> IO[bytes]:
        """A file that grows in place under its final name, and need not ever be whole."""
        if self.is_local:
            final = Path(self.full(path))
            final.parent.mkdir(parents=True, exist_ok=True)
            return final.open("wb")
        self.fs.makedirs(self.full(path.rpartition("/")[0]), exist_ok=True)
        return self.fs.open(self.full(path), "wb")  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A local path to read from: the file itself, or a copy that is removed afterwards."""
        if not self.exists(path):
            raise DataError(f"{self.url}/{path}: no such file in the workspace")
        if self.is_local:
            yield Path(self.full(path))
            return
        folder = Path(tempfile.mkdtemp(prefix="curate-"))
        try:
            copy = folder / path.rsplit("/", 1)[-1]
            self.fs.get_file(self.full(path), str(copy))
            yield copy
        finally:
            shutil.rmtree(folder, ignore_errors=True)

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
        if self.is_local:
            shutil.rmtree(self.full(TEMP), ignore_errors=True)


def json_bytes(value: Any) -> bytes:
    """Plain values as indented JSON, keys in the order given, one trailing newline."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def ref_of(local: Path, path: str) -> FileRef:
    """The FileRef of a local file that is about to be committed as ``path``."""
    hasher = _hasher()
    with local.open("rb") as stream:
        while block := stream.read(1 << 20):
            hasher.update(block)
    return FileRef(path, local.stat().st_size, hasher.hexdigest())


def _hasher(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=16)


def _absolute(path: str) -> str:
    """As fsspec writes it."""
    if not path.startswith("/"):
        path = f"{Path.cwd()}/{'' if path == '.' else path.removeprefix('./')}"
    return path.rstrip("/")


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """Name and bytes of the files in a local folder; one that goes meanwhile is left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    yield entry.name, entry.stat(follow_symlinks=False).st_size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
