"""DataComp's subset file, written as a stream: nothing but one shard is in memory."""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.dataset.uid import SUBSET_DTYPE, halves


class SubsetWriter:
    """A sorted ``.npy`` of ``u8,u8`` records, shape (n,); a uid is there as often as it repeats.

    The bytes are those of ``np.save``; the header is written when the count is known.
    """

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._stream: IO[bytes] = path.open("wb")
        self._header = len(_header(0))
        self._stream.write(_header(0))

    def __enter__(self) -> SubsetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            header = _header(self.rows)
            if len(header) != self._header:
                raise AssertionError("numpy's header has grown; it is padded for any count")
            self._stream.seek(0)
            self._stream.write(header)
        self._stream.close()

    def add(self, uids: pa.Array | pa.ChunkedArray, repeats: npt.NDArray[np.int32]) -> None:
        """Append uids, ascending and after all that came before."""
        if len(uids):
            records = np.repeat(halves(uids), repeats)
            self._stream.write(records.tobytes())
            self.rows += len(records)


def _header(rows: int) -> bytes:
    stream = io.BytesIO()
    description = np.lib.format.dtype_to_descr(SUBSET_DTYPE)
    np.lib.format.write_array_header_1_0(
        stream, {"descr": description, "fortran_order": False, "shape": (rows,)}
    )
    return stream.getvalue()
