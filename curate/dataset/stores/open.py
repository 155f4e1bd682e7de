"""From a URL to the store behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate import extras
from curate.dataset.stores.local import LocalStore
from curate.dataset.stores.protocol import Store
from curate.dataset.stores.remote import RemoteStore
from curate.errors import UserError


def open_store(url: str, options: Mapping[str, Any]) -> Store:
    """The store of a path, or of any URL that fsspec knows.

    Args:
        options: of fsspec's filesystem.

    Raises:
        UserError: nothing knows such a URL, or the package that does is not installed.
    """
    if not (":" in url or url.startswith("~") or "protocol" in options):
        return LocalStore(_absolute(url))  # fsspec brings asyncio: a local run starts sooner without
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    try:
        fs, root = fsspec.core.url_to_fs(url, **{"use_listings_cache": False, **options})
    except (ValueError, ImportError) as error:
        s3 = f"; {extras.install('s3')}" if isinstance(error, ImportError) and url.startswith("s3") else ""
        raise UserError(f"workspace: cannot open '{url}': {error}{s3}") from None
    return LocalStore(str(root)) if isinstance(fs, LocalFileSystem) else RemoteStore(fs, str(root))


def _absolute(path: str) -> str:
    """As fsspec writes it."""
    if not path.startswith("/"):
        path = f"{Path.cwd()}/{'' if path == '.' else path.removeprefix('./')}"
    return path.rstrip("/")
