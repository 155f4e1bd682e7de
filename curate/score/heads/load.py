"""From a file to a head, by what is in the file: its name is never trusted to say what it is."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable

from curate.dataset import external
from curate.errors import UserError
from curate.score.heads.formats.arrays import read_npy, read_pickled_array
from curate.score.heads.formats.keras import read_keras_zip
from curate.score.heads.formats.tensors import read_safetensors, read_torch
from curate.score.heads.head import Head
from curate.score.heads.layers import doubles
from curate.score.heads.published import head_from_keras, head_from_prompts, head_from_state
from curate.score.heads.sidecar import head_from_sidecar, sidecar_path

_LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")

_LFS = b"version https://git-lfs"


def load_head(url: str, kind: str | None = None, place: str = "file") -> Head:
    """A head from its file.

    Args:
        url: a local path or an fsspec URL of one of the formats in docs/heads.md.
        kind: what it is, only when the file leaves it open; see ``published.PUBLISHED``.
        place: the config key that names it, for messages.

    Raises:
        UserError: no such file, a broken one, or one whose layers are not known.
    """
    return read_head(url, digests(url, place), kind, place)


def digests(url: str, place: str) -> tuple[str, ...]:
    """Of the file, and of the JSON file beside a safetensors file."""
    files = (url, sidecar_path(url)) if url.endswith(".safetensors") else (url,)
    return tuple(external.digest(file, place) for file in files)


@functools.lru_cache(maxsize=32)
def read_head(url: str, expected: tuple[str, ...], kind: str | None, place: str) -> Head:
    """The head whose files have these digests, loaded once per process."""
    data = external.read(url, place, expected[0])
    try:
        if len(expected) == 2:
            sidecar = external.read(sidecar_path(url), place, expected[1])
            tensors = read_safetensors(data)
            try:
                return head_from_sidecar(sidecar, tensors)
            except ValueError as error:
                raise UserError(f"{place}: {sidecar_path(url)}: {error}") from None
        return head_from_bytes(data, url.partition("?")[0].rpartition("/")[2], kind)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{place}: {url}: {error}") from None


def head_from_bytes(data: bytes, name: str, kind: str | None = None) -> Head:
    """A published head from the bytes of its one file.

    Raises:
        ValueError: not a head, in words that go behind the file's name.
    """
    for fits, read in _FORMATS:
        if fits(data):
            return read(data, name, kind)
    if data.startswith(_LFS):
        raise ValueError(
            "a Git LFS pointer in place of the file; get the file itself, e.g. with `git lfs pull`"
        )
    raise ValueError("not a Keras zip, PyTorch file, npy or safetensors with its JSON")


def _is_torch(data: bytes) -> bool:
    return data.startswith(_LEGACY_TORCH) or (
        _is_zip(data) and any(n.endswith("data.pkl") for n in _names(data))
    )


def _is_zip(data: bytes) -> bool:
    return data.startswith(b"PK\x03\x04")


def _names(data: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return []


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, str, str | None], Head]], ...] = (
    (_is_torch, lambda data, name, kind: head_from_state(read_torch(data), name, kind)),
    (_is_zip, lambda data, name, kind: head_from_keras(read_keras_zip(data), kind)),
    (
        lambda data: data.startswith(b"\x93NUMPY"),
        lambda data, name, kind: head_from_prompts(doubles(read_npy(data)), name, kind),
    ),
    (
        lambda data: data.startswith(b"\x80"),
        lambda data, name, kind: head_from_prompts(doubles(read_pickled_array(data)), name, kind),
    ),
)
