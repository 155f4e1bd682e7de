"""npy arrays read from front to back, from any store, alone or inside an ``.npz``; checked first.

Readers of such files elsewhere take any bytes for vectors: mixed types, Fortran order, half a file.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from curate.clip.vectors import Vectors
from curate.dataset.listing import open_fs
from curate.errors import DataError, UserError

TYPES = ("float16", "float32", "float64")


@dataclass
class Array:
    """Vectors (rows, dim) of one file, read once, in order."""

    place: str
    rows: int
    dim: int
    dtype: np.dtype[Any]
    stream: IO[bytes]

    def read(self, rows: int) -> Vectors:
        """The next rows, float32 (rows, dim).

        Raises:
            DataError: the file ends before.
        """
        size = rows * self.dim * self.dtype.itemsize
        parts: list[bytes] = []
        missing = size
        while missing:
            try:
                part = self.stream.read(missing)
            except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise DataError(f"{self.place}: cannot be read ({error})") from None
            if not part:
                raise DataError(f"{self.place}: ends {missing:,} bytes early; half written?")
            parts.append(part)
            missing -= len(part)
        flat: npt.NDArray[Any] = np.frombuffer(b"".join(parts), self.dtype)
        with np.errstate(over="ignore"):  # to infinity, which is counted as a bad vector
            return flat.reshape(rows, self.dim).astype(np.float32)


@contextlib.contextmanager
def open_array(url: str, member: str | None, options: Mapping[str, Any]) -> Iterator[Array]:
    """An ``.npy`` file, or the array ``member`` of an ``.npz``.

    Raises:
        DataError: not a whole file of floats with two axes in C order.
        UserError: the ``.npz`` has no such array.
    """
    fs, path = open_fs(url, options)
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(fs.open(path, "rb"))
            size = int(fs.info(path)["size"])
            place = url
            if member is not None:
                archive = stack.enter_context(zipfile.ZipFile(stream))
                place, name = f"{url}: {member}", f"{member}.npy"
                if name not in archive.namelist():
                    have = ", ".join(sorted(n.removesuffix(".npy") for n in archive.namelist()))
                    raise UserError(f"{url}: has no array '{member}' (it has {have}); see `arrays`")
                size = archive.getinfo(name).file_size
                stream = stack.enter_context(archive.open(name))
            array = _checked(stream, size, place)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{url}: cannot be read ({error})") from None
        yield array


def _checked(stream: IO[bytes], size: int, place: str) -> Array:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"npy version {version}")
    except ValueError as error:
        raise DataError(f"{place}: not an npy array ({error})") from None
    if len(shape) != 2 or dtype.name not in TYPES or shape[1] < 1:
        raise DataError(f"{place}: expected vectors of {', '.join(TYPES)} (rows, dim), got {dtype} {shape}")
    if fortran and min(shape) > 1:
        raise DataError(f"{place}: is in Fortran order; save it again with np.ascontiguousarray")
    expected = stream.tell() + math.prod(shape) * dtype.itemsize
    if size != expected:
        raise DataError(
            f"{place}: has {size:,} bytes, but its header says {expected:,} ({dtype} {shape}); half written?"
        )
    return Array(place, int(shape[0]), int(shape[1]), dtype, stream)
