"""Files of vectors in clip-retrieval's layout: float16, one row per sample, checked before use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.dataset import layout
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.errors import DataError

STORED = "stored"
"""In place of digests in ``model.json``: the vectors came ready, nobody here has seen the weights."""

Vectors = npt.NDArray[np.float32]
Stored = npt.NDArray[np.float16]


def write_vectors(workspace: Workspace, path: str, vectors: Vectors) -> FileRef:
    """Commit vectors (n, dim) as float16; rows without an embedding are NaN."""
    with workspace.writing(path) as temporary:
        with temporary.open("wb") as stream:
            np.save(stream, vectors.astype(np.float16), allow_pickle=False)
        return ref_of(temporary, path)


@contextlib.contextmanager
def open_vectors(
    workspace: Workspace, path: str, rows: int | None = None, dim: int | None = None
) -> Iterator[Stored]:
    """Memory-mapped vectors (n, dim), float16.

    Raises:
        DataError: not a whole npy file of float16 with two axes in C order, or of another number of
            rows or dimensions than expected.
    """
    with workspace.local(path) as local:
        yield checked(map_npy(local, f"{workspace.url}/{path}"), f"{workspace.url}/{path}", rows, dim)


def map_npy(local: Path, place: str) -> npt.NDArray[Any]:
    """Map an npy file into memory. Raises DataError when it is not one or has been cut short."""
    try:
        array: npt.NDArray[Any] = np.load(local, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        if local.exists() and _is_empty_npy(local):
            return np.load(local, allow_pickle=False)  # type: ignore[no-any-return]
        raise DataError(f"{place}: not a whole npy file ({error}); run the stage again") from None
    return array


def checked(array: npt.NDArray[Any], place: str, rows: int | None, dim: int | None) -> Stored:
    """The array, when it is float16 (rows, dim) in C order."""
    if array.dtype != np.float16 or array.ndim != 2 or not array.flags.c_contiguous:
        raise DataError(
            f"{place}: expected float16 vectors with two axes in C order, got {array.dtype} {array.shape}"
        )
    if rows is not None and array.shape[0] != rows:
        raise DataError(f"{place}: expected {rows} vectors, got {array.shape[0]}; run the stage again")
    if dim is not None and array.shape[1] != dim:
        raise DataError(f"{place}: expected vectors of {dim} dimensions, got {array.shape[1]}")
    return array


def read_model(workspace: Workspace, alias: str) -> dict[str, Any]:
    """What made the vectors of an alias (``model.json``).

    Raises:
        DataError: nothing is embedded under that alias, or the file is not what embed writes.
    """
    path = layout.embedding_model(alias)
    facts = workspace.read_json(path)
    if not isinstance(facts, dict) or not {"dim", "weights", "checkpoint", "model"} <= facts.keys():
        raise DataError(f"{workspace.url}/{path}: not the facts of a model; run `curate embed` again")
    return facts


def fits(checkpoint: str, dim: int, facts: Mapping[str, Any]) -> bool:
    """Whether a model with this checkpoint and dimension may be compared with the vectors of ``facts``.

    Of vectors that came ready only the dimension is known.
    """
    return facts["checkpoint"] in (checkpoint, STORED) and int(facts["dim"]) == dim


def _is_empty_npy(local: Path) -> bool:
    """numpy cannot map a file whose array has no elements."""
    try:
        return bool(np.load(local, allow_pickle=False).size == 0)
    except (ValueError, OSError, EOFError):
        return False
