"""Files that a config names and that are not part of the workspace: weights, word lists, target sets."""

from __future__ import annotations

import functools
import hashlib
import time
from typing import Any

from curate.errors import UserError, reaching, storage_text


def digest(url: str, place: str) -> str:
    """128-bit digest of a file's bytes.

    Args:
        url: a local path (``~`` is expanded) or an fsspec URL.
        place: the config key that names it, for messages.

    Raises:
        UserError: no such file.
    """
    fs, path = _found(url, place)
    with reaching(f"{place}: {url}"):
        info = fs.info(path)
    changed = info.get("mtime") or info.get("LastModified") or ""
    # A clock ticks every few milliseconds: what was written just now may be written again in this tick.
    settled = not isinstance(changed, float) or time.time() - changed > 2
    return (_digest if settled else _digest.__wrapped__)(url, int(info["size"] or 0), str(changed))


def read(url: str, place: str, expected: str | None = None) -> bytes:
    """A whole file.

    Raises:
        UserError: no such file, or not the bytes whose digest is ``expected`` (a worker that sees
            another file than the driver).
    """
    fs, path = _found(url, place)
    with reaching(f"{place}: {url}"):
        data: bytes = fs.cat_file(path)
    if expected is not None and hashlib.blake2b(data, digest_size=16).hexdigest() != expected:
        raise UserError(f"{place}: {url} has changed, or is another file on this worker; run again")
    return data


def _found(url: str, place: str) -> tuple[Any, str]:
    import fsspec  # here, because with asyncio it takes its time, and many configs name no file

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError, TypeError) as error:
        raise UserError(f"{place}: cannot open '{url}': {error}") from None
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


@functools.lru_cache(maxsize=256)
def _digest(url: str, size: int, changed: str) -> str:
    import fsspec

    hasher = hashlib.blake2b(digest_size=16)
    with fsspec.open(url, "rb") as stream:
        while block := stream.read(1 << 22):
            hasher.update(block)
    return hasher.hexdigest()
