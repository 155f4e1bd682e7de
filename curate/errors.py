"""Errors that are the user's to mend: the CLI prints them as one line, without a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class CurateError(Exception):
    """Base of every error this package raises on purpose."""


class UserError(CurateError):
    """Something the user can mend. The message names the file, the key and the fix; exit code 2."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used: unknown key, wrong type, missing file."""


class DataError(UserError, ValueError):
    """Data on disk that does not fit what it claims to be (wrong rows, wrong model, half a file)."""


class BudgetExceededError(CurateError):
    """Too much broke: the error budget stopped the run. What was committed stays; exit code 3."""


class ClusterLostError(CurateError):
    """The cluster went away in mid run. What was committed stays; exit code 3."""


class IncompleteError(CurateError):
    """The run ended with quarantined shards: everything else is committed; exit code 3."""


_STORES = {
    "fsspec",
    "s3fs",
    "botocore",
    "aiobotocore",
    "gcsfs",
    "adlfs",
    "azure",
    "google",
    "aiohttp",
    "requests",
}
"""Packages whose errors are about a store: no such bucket, no credentials, no network."""


def is_of_storage(error: BaseException) -> bool:
    """Whether a disk, a network or a store failed, and not this program."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _STORES


def storage_text(error: BaseException) -> str:
    """What a disk or a store said, on one line, with the likely fix where it refused."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    said = " ".join(str(error).split()) or type(error).__name__
    hint = " (public data: storage_options: {anon: true})" if "credential" in said.lower() else ""
    return f"{said}{hint}"


@contextlib.contextmanager
def reaching(what: str) -> Iterator[None]:
    """Turn what a store says while ``what`` is read into a UserError about it.

    Raises:
        UserError: a disk, a network or a store failed.
    """
    try:
        yield
    except CurateError:
        raise
    except Exception as error:
        if not is_of_storage(error):
            raise
        raise UserError(f"{what}: {storage_text(error)}") from None
