"""Files outside of the workspace that a config names by paths, globs and folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from curate.dataset.workspace import FileRef
from curate.errors import UserError

_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_CHANGED = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated")


def open_fs(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The filesystem of a path or URL and its path there. Options are for remote stores only."""
    import fsspec  # here, because with asyncio it takes its time, and many configs list nothing

    try:
        fs, path = fsspec.core.url_to_fs(url, **(options if _REMOTE.match(url) else {}))
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
    except OSError as error:
        raise UserError(f"{place}: '{pattern}' cannot be listed: {error}") from None
    for info in infos:
        ref = file_ref(fs, info)
        name = ref.path.rpartition("/")[2]
        if name.endswith(endings) and not name.startswith((".", "_")):
            yield ref


def file_ref(fs: Any, info: Mapping[str, Any]) -> FileRef:
    """Of what a filesystem says about one file."""
    from fsspec.implementations.local import LocalFileSystem

    name, size = str(info["name"]), int(info.get("size") or 0)
    changed = next((info[key] for key in _CHANGED if info.get(key)), "")
    url = name if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(name))
    return FileRef(url, size, f"{size}-{changed}")
