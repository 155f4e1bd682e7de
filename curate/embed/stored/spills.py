"""Rows of existing embeddings on disk, sorted by uid, so that a shard's rows are one stretch of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.dataset import layout
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.embed.stored.rows import Records, shard_bounds, sorted_order
from curate.errors import DataError

SPILL_BYTES = 256 << 20
"""What is sorted at once: the memory of a worker, whatever the size of the source."""
WRITE_ROWS = 4_096


def spill_rows(dtype: np.dtype[Any]) -> int:
    """Rows of one file."""
    return max(1, SPILL_BYTES // dtype.itemsize)


def write_spill(
    workspace: Workspace, alias: str, name: str, records: Records, shards: int
) -> tuple[FileRef, FileRef]:
    """Commit rows in uid order, and where every shard begins among them."""
    order = sorted_order(records)
    path, beside = _paths(alias, name)
    with workspace.writing(path) as temporary:
        with temporary.open("wb") as stream:
            header = {
                "descr": np.lib.format.dtype_to_descr(records.dtype),
                "fortran_order": False,
                "shape": (len(records),),
            }
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, len(order), WRITE_ROWS):
                stream.write(records[order[start : start + WRITE_ROWS]].tobytes())
        rows = ref_of(temporary, path)
    with workspace.writing(beside) as temporary:
        with temporary.open("wb") as stream:
            np.save(stream, shard_bounds(records["f0"][order], shards))
        return rows, ref_of(temporary, beside)


def read_shard(
    workspace: Workspace, alias: str, names: Sequence[str], shard: int, dtype: np.dtype[Any]
) -> Records:
    """The rows of one shard from all files: (m,) of ``record_dtype``, file after file.

    Raises:
        DataError: a file is not what ``write_spill`` has written.
    """
    parts = [np.empty(0, dtype)]
    parts += [part for name in names if len(part := _read_part(workspace, alias, name, shard, dtype))]
    return np.concatenate(parts)


def _read_part(workspace: Workspace, alias: str, name: str, shard: int, dtype: np.dtype[Any]) -> Records:
    path, beside = _paths(alias, name)
    first, last = _stretch(workspace, beside, np.dtype(np.int64), shard, 2).tolist()
    return _stretch(workspace, path, dtype, first, last - first)


def _stretch(
    workspace: Workspace, path: str, dtype: np.dtype[Any], start: int, count: int
) -> npt.NDArray[Any]:
    """Elements ``[start, start + count)`` of a one-dimensional npy file, without reading the rest."""
    if not count:
        return np.empty(0, dtype)
    with workspace.open(path) as stream:
        try:
            np.lib.format.read_magic(stream)
            shape, _, found = np.lib.format.read_array_header_1_0(stream)
        except ValueError as error:
            raise DataError(f"{workspace.url}/{path}: not an npy file ({error}); remove it") from None
        stream.seek(start * dtype.itemsize, 1)
        data = stream.read(count * dtype.itemsize)
    if found != dtype or start + count > shape[0] or len(data) < count * dtype.itemsize:
        raise DataError(f"{workspace.url}/{path}: has other rows than it was written with; remove it")
    return np.frombuffer(data, dtype)


def names_of(refs: Iterator[FileRef]) -> list[str]:
    """The names under which ``write_spill`` has written, of all its files."""
    return sorted(
        ref.path.rpartition("/")[2].removesuffix(".npy") for ref in refs if not ref.path.endswith(_BESIDE)
    )


_BESIDE = ".bounds.npy"


def _paths(alias: str, name: str) -> tuple[str, str]:
    return layout.stored_rows(alias, name), layout.stored_rows(alias, name + _BESIDE.removesuffix(".npy"))
