"""What is installed with which extra: a package that is missing is one line that says what to install."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

from curate.errors import UserError

PACKAGES = {
    "altair": "report",
    "cv2": "download",
    "dask_jobqueue": "cluster",
    "exifread": "download",
    "faiss": "index",
    "huggingface_hub": "clip",
    "img2dataset": "download",
    "open_clip": "clip",
    "s3fs": "s3",
    "safetensors": "clip",
    "scipy": "clip",
    "sentence_transformers": "multilingual",
    "timm": "clip",
    "torch": "clip",
    "torchvision": "clip",
    "transformers": "transformers",
    "vl_convert": "report",
}
"""Package, as it is imported → the extra that brings it."""


class MissingExtraError(UserError):
    """A package is not installed that an extra would have brought."""


def missing(package: str, why: str = "this") -> MissingExtraError:
    """The error for a package that is not there.

    Args:
        package: as it is imported.
        why: what needs it.
    """
    extra = PACKAGES[package]
    return MissingExtraError(
        f"{why} needs the extra '{extra}' (no module named '{package}'): {install(extra)}"
    )


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'curate[{extra}]'"


def has(package: str) -> bool:
    """Whether a package is installed; it is not imported."""
    return importlib.util.find_spec(package) is not None


@contextlib.contextmanager
def named(why: str = "this") -> Iterator[None]:
    """Turn the import of a package that an extra would have brought into an error that says so.

    Raises:
        MissingExtraError: such a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        raise missing(package, why) from None
