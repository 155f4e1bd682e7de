"""A file of one column: batches of rows, and with each how many of its rows are of which shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

FEW = 256
"""Languages, sources, licences; not the texts of a first batch of 131,072 captions."""

LARGE = 1 << 30
"""Bytes of a batch that are left in pieces: an array of strings has at most 2 GB."""

_ROWS, _PIECES, _NAME = b"rows", b"pieces", b"name"


class Part(NamedTuple):
    """One batch. ``rows``: of every shard in it."""

    values: pa.ChunkedArray
    rows: list[int]


class ColumnWriter:
    """Writes batches of a column, in order; the type is that of the first one.

    Args:
        name: of the column, to tell one file from another.
        few: texts are written as numbers and a dictionary when the first batch has no more different ones.

    Memory: that of a batch, and each text once where they are numbers.
    """

    def __init__(self, path: Path, name: str, few: int = FEW) -> None:
        self._name, self._few = name, few
        self._stream = pa.OSFile(str(path), "wb")
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._texts: pa.Array | None = None
        """Where they are numbers: those so far."""

    def add(self, values: pa.ChunkedArray, rows: Sequence[int]) -> None:
        """Append a batch of so many rows of each shard."""
        writer = self._writer or self._begin(values)
        if self._texts is not None:
            values = self._encoded(values)
        pieces = values.chunks if values.nbytes > LARGE else [values.combine_chunks()]
        facts = {_ROWS: " ".join(map(str, rows)).encode(), _PIECES: str(len(pieces)).encode()}
        for piece in pieces:
            writer.write_batch(pa.record_batch([piece], ["values"]), facts)

    def close(self) -> None:
        """Write the end of the file; without it nobody can read it."""
        if self._writer is not None:
            self._writer.close()
        self._stream.close()

    def _begin(self, values: pa.ChunkedArray) -> pa.ipc.RecordBatchFileWriter:
        kind = values.type
        if pa.types.is_string(kind) and len(pc.unique(values)) <= self._few:
            # Arrow adds to no dictionary that is empty.
            self._texts = pa.array([""], kind)
            kind = pa.dictionary(pa.int32(), kind)
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        schema = pa.schema([("values", kind)], {_NAME: self._name.encode()})
        self._writer = pa.ipc.new_file(self._stream, schema, options=options)
        return self._writer

    def _encoded(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        new = pc.unique(values).drop_null()
        self._texts = pa.concat_arrays([self._texts, new.filter(pc.is_null(pc.index_in(new, self._texts)))])
        numbers = pc.index_in(values, self._texts).combine_chunks()
        return pa.chunked_array([pa.DictionaryArray.from_arrays(numbers, self._texts)])


def column_parts(memory: pa.Buffer, name: str) -> Iterator[Part]:
    """The batches of such a file, in their order; their memory is that of the file.

    Raises:
        pa.ArrowException, OSError, ValueError, KeyError: it is not one, not all of one, or that of another
            column; some of that is only seen when a batch is read.
    """
    file = pa.ipc.open_file(memory)
    if (file.schema.metadata or {}).get(_NAME) != name.encode():
        raise ValueError("another column")

    def parts() -> Iterator[Part]:
        pieces = map(file.get_batch_with_custom_metadata, range(file.num_record_batches))
        for piece, facts in pieces:
            values = [piece.column(0), *(p.column(0) for p, _ in islice(pieces, int(facts[_PIECES]) - 1))]
            for value in values:
                _check_ends(value)
            yield Part(pa.chunked_array(values), [int(rows) for rows in facts[_ROWS].split()])

    return parts()


def _check_ends(values: pa.Array) -> None:
    """Raises ValueError when a text would lie outside of its buffer: whoever reads it would crash."""
    if pa.types.is_dictionary(values.type):
        numbers, values = values.indices, values.dictionary
        most = pc.max(numbers).as_py()
        if most is not None and not (most < len(values) and pc.min(numbers).as_py() >= 0):
            raise ValueError("numbers of no text")
    if not pa.types.is_string(values.type):
        return
    _, offsets, texts = values.buffers()
    ends = np.frombuffer(offsets, np.int32, len(values) + 1, 4 * values.offset)
    if ends[0] < 0 or (ends[1:] < ends[:-1]).any() or ends[-1] > (texts.size if texts else 0):
        raise ValueError("texts outside of the file")
