"""Files outside of the workspace that a config names by paths, globs and folders."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from curate.dataset.workspace import FileRef
from curate.errors import UserError, reaching

_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_CHANGED = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


def open_fs(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The filesystem of a path or URL and its path there. Options are for remote stores only.

    It keeps no listings: what somebody has just written is there.
    """
    import fsspec  # here, because with asyncio it takes its time, and many configs list nothing

    remote = options if _REMOTE.match(url) else {}
    try:
        fs, path = fsspec.core.url_to_fs(url, **{"use_listings_cache": False, **remote})
    except (ValueError, ImportError, TypeError) as error:
        raise UserError(f"cannot open '{url}': {error}") from None
    return fs, str(path)


def listed(
    pattern: str, options: Mapping[str, Any], place: str, endings: tuple[str, ...]
) -> Iterator[FileRef]:
    """The files with one of these endings that a pattern names; a folder stands for all below it.

    A ref's path is an absolute path or URL, its digest the size and what the filesystem says of the last
    change: it costs a stat and differs when the file was replaced. Names that begin with ``.`` or ``_`` are
    left out.

    Args:
        place: the config key, for messages.

    Raises:
        UserError: there is no such file or folder, or it cannot be listed.
    """
    refs = _below(pattern, place) if _is_folder(pattern) else _found(pattern, options, place)
    for ref in refs:
        name = ref.path.rpartition("/")[2]
        if name.endswith(endings) and not name.startswith((".", "_")):
            yield ref


def is_path(url: str) -> bool:
    """Whether it is a path of this machine as the system has it, so that nothing has to look for a store."""
    return url.startswith("/") and "::" not in url


def _is_folder(pattern: str) -> bool:
    return not _REMOTE.match(pattern) and "::" not in pattern and Path(pattern).is_dir()


def _below(folder: str, place: str) -> Iterator[FileRef]:
    """All files below a local folder, as fsspec would find them; nothing has to be imported for it."""

    def fail(error: OSError) -> None:
        raise UserError(f"{place}: '{folder}' cannot be listed: {error}") from None

    for parent, _, names in os.walk(os.path.abspath(folder), onerror=fail):  # noqa: PTH100
        for name in names:
            path = f"{parent}/{name}"
            # A link to nothing, or a file that has just gone.
            with contextlib.suppress(FileNotFoundError):
                found = Path(path).stat()
                yield _ref(path, found.st_size, found.st_mtime)


def _found(pattern: str, options: Mapping[str, Any], place: str) -> Iterator[FileRef]:
    with reaching(f"{place}: '{pattern}'"):
        fs, infos = _infos(pattern, options, place)
    yield from (file_ref(fs, info) for info in infos)


def _infos(pattern: str, options: Mapping[str, Any], place: str) -> tuple[Any, list[Mapping[str, Any]]]:
    fs, path = open_fs(pattern, options)
    try:
        if fs.isdir(path):
            infos = list(fs.find(path, detail=True).values())
        elif any(sign in path for sign in "*?[") and not fs.exists(path):
            matches = fs.glob(path, detail=True).values()
            infos = [info for info in matches if info["type"] == "file"]
            for info in matches:
                if info["type"] == "directory":
                    infos += fs.find(info["name"], detail=True).values()
        else:
            infos = [fs.info(path)]
    except FileNotFoundError:
        raise UserError(f"{place}: '{pattern}': no such file or folder") from None
    return fs, infos


def file_ref(fs: Any, info: Mapping[str, Any]) -> FileRef:
    """Of what a filesystem says about one file."""
    from fsspec.implementations.local import LocalFileSystem

    name, size = str(info["name"]), int(info.get("size") or 0)
    url = name if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(name))
    return _ref(url, size, last_change(info))


def last_change(info: Mapping[str, Any]) -> object:
    """What a filesystem says of the last change of a file, empty when it says nothing."""
    return next((info[key] for key in _CHANGED if info.get(key)), "")


def _ref(url: str, size: int, changed: object) -> FileRef:
    return FileRef(url, size, f"{size}-{changed}")
