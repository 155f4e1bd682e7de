"""What the user named as input, as a list of files: paths, globs, directories, Common Crawl's path lists."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from curate.errors import UserError

COMMON_CRAWL = "https://data.commoncrawl.org/"
"""What the lines of a ``wat.paths.gz`` are relative to, unless told otherwise (or ``s3://commoncrawl/``)."""

InputFormat = Literal["wat", "parquet", "csv", "tsv", "jsonl"]

SUFFIXES = (".wat", ".parquet", ".csv", ".tsv", ".jsonl")
"""The files that a directory stands for: these, also with ``.gz``. A path or glob may name any file."""

_LIST = re.compile(r"\.paths(\.gz)?$")
_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_CHANGE_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "Content-MD5", "md5Hash")


@dataclass(frozen=True, slots=True, order=True)
class InputFile:
    """One input file.

    ``fingerprint`` is the size and what the filesystem says of the last change (ETag, else time of
    modification), as text: it costs a stat, reads nothing, and differs when the file was replaced. A change
    that keeps size and time goes unseen. ``listed`` stands for a remote file that a path list named: those
    are not asked for one by one (a crawl has 90,000, and they never change), so their size is None.
    """

    url: str
    size: int | None
    fingerprint: str


def expand_inputs(
    patterns: Sequence[str], fs_options: Mapping[str, Any] | None = None, *, prefix: str = COMMON_CRAWL
) -> list[InputFile]:
    """The files that the patterns name, sorted by URL and without repeats, whatever the patterns' order.

    A pattern is a local path or an fsspec URL (``https://``, ``s3://``...) of a file, a glob, a directory
    (its files with one of :data:`SUFFIXES`, at any depth, hidden ones aside) or a ``*.paths`` or
    ``*.paths.gz`` list, whose relative lines are joined to ``prefix``. Local files come back with their
    absolute path. An existing file is taken as such even if its name has ``*``, ``?`` or ``[`` in it.

    Raises :class:`~curate.errors.UserError` for a pattern that matches nothing or cannot be listed.
    """
    options = dict(fs_options or {})
    found: dict[str, InputFile] = {}
    for pattern in patterns:
        before = len(found)
        matched = False
        for file in _expand(pattern, options, prefix):
            matched = True
            if file.url not in found or file.size is not None:
                found[file.url] = file
        if not matched and len(found) == before:
            raise UserError(f"inputs: {pattern!r} matches no file; check the path or the glob")
    return sorted(found.values())


def is_web(url: str) -> bool:
    """Whether a web server is asked for it."""
    return url.startswith(("http://", "https://"))


def check_complete(stream: Any, url: str) -> None:
    """Raise OSError if a file that was read to its end gave fewer bytes than it has.

    Some stores answer a broken connection with what came until then; that must not pass for a short file.
    Does nothing where the store does not say how long the file is.
    """
    size = getattr(stream, "size", None)
    if isinstance(size, int) and (got := stream.tell()) < size:
        raise OSError(f"{url}: only {got:,} of {size:,} bytes came")


def guess_format(url: str) -> InputFormat:
    """The format that a file's name says (``.wat``, ``.parquet``, ``.csv``..., also with ``.gz``)."""
    name = url.lower().partition("?")[0].removesuffix(".gz")
    formats: tuple[InputFormat, ...] = ("wat", "parquet", "csv", "tsv", "jsonl")
    for known in formats:
        if name.endswith("." + known):
            return known
    raise UserError(f"{url}: the name does not say the format; set `format` to one of {', '.join(formats)}")


def _expand(pattern: str, options: dict[str, Any], prefix: str) -> Iterator[InputFile]:
    fs, path = _open_filesystem(pattern, options)
    for file in _matches(fs, path, pattern):
        if _LIST.search(file.url):
            yield from _read_list(fs, file.url, options, prefix)
        else:
            yield file


def _matches(fs: Any, path: str, pattern: str) -> list[InputFile]:
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    over_http = protocol in ("http", "https")
    # "?" and "[" are ordinary in web addresses; "*" is the only sign that a glob is meant.
    is_glob = "*" in path or (not over_http and any(sign in path for sign in "?["))
    try:
        if is_glob and (over_http or not fs.exists(path)):
            infos = [info for info in fs.glob(path, detail=True).values() if info["type"] == "file"]
        elif not over_http and fs.isdir(path):
            infos = [info for info in fs.find(path, detail=True).values() if _wanted(info["name"], path)]
            if not infos:
                raise UserError(
                    f"inputs: no file below {pattern!r} ends in {', '.join(SUFFIXES)} (or those with .gz); "
                    "name the files by a glob"
                )
        else:
            infos = [fs.info(path)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"inputs: cannot look up {pattern!r}: {error}") from error
    return [_input_file(fs, info) for info in infos]


def _wanted(name: str, root: str) -> bool:
    below = name[len(root) :].strip("/")
    hidden = any(part.startswith((".", "_")) for part in below.split("/"))
    return not hidden and below.removesuffix(".gz").endswith(SUFFIXES)


def _input_file(fs: Any, info: Mapping[str, Any]) -> InputFile:
    name = str(info["name"])
    size = info.get("size")
    changed = next((info[key] for key in _CHANGE_KEYS if info.get(key)), "")
    url = name if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(name))
    return InputFile(url, None if size is None else int(size), f"{size}-{changed}")


def _read_list(fs: Any, url: str, options: dict[str, Any], prefix: str) -> Iterator[InputFile]:
    try:
        data = fs.cat_file(fs._strip_protocol(url))
        # By content: a download client may have unpacked the file and kept its name.
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"inputs: cannot read the path list {url!r}: {error}") from error
    for line in text.splitlines():
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        absolute = _REMOTE.match(entry) or entry.startswith("/")
        target = entry if absolute else f"{prefix.rstrip('/')}/{entry}"
        target_fs, path = _open_filesystem(target, options)
        if not isinstance(target_fs, LocalFileSystem):
            yield InputFile(target, None, "listed")
            continue
        if not target_fs.isfile(path):
            raise UserError(f"inputs: {url!r} lists {entry!r}, but there is no file {path!r}; set `prefix`")
        yield _input_file(target_fs, target_fs.info(path))


def _open_filesystem(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    # Options are for the remote store: the local filesystem takes none of them.
    local = not _REMOTE.match(url)
    try:
        fs, path = fsspec.core.url_to_fs(url, **({} if local else options))
    except (ValueError, ImportError, TypeError) as error:
        raise UserError(f"inputs: cannot open {url!r}: {error}") from error
    return fs, str(path)
