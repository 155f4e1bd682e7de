"""The rows of an output shard: a selection joined with the columns of its samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import DataError

FIRST = (
    "uid",
    "url",
    "text",
    "width",
    "height",
    "original_width",
    "original_height",
    "sha256",
    "similarity",
)
"""Columns that come first, in this order, where there are such columns."""

ONLY_IN_TABLES = {"exif"}
"""EXIF may say who took a picture and where: it is in the table, not in every copy of the sample."""


def in_order(names: Iterable[str]) -> list[str]:
    """Column names with those of ``FIRST`` in front, the others as they come; always with a uid."""
    names = list(names)
    return [n for n in FIRST if n == "uid" or n in names] + [n for n in names if n not in FIRST]


def selected(samples: pa.Table, selection: pa.Table, start: int, stop: int) -> pa.Table:
    """Rows ``[start, stop)`` of a selection, repeats counted, with the columns of their samples.

    Args:
        samples: a shard's samples, ``uid`` and any columns, in uid order.
        selection: ``uid`` and ``repeats`` (int32) of the kept samples, in uid order.
        start: first row, 0-based.
        stop: past the last row.

    Returns:
        The columns of ``samples`` and ``key``: the uid, or ``<uid>-<copy>`` (copies from 0) where
        a sample is kept more than once. A copy has the same key whichever output shard it is in.

    Raises:
        DataError: the selection names a uid that is no sample, or has fewer rows than ``stop``.
    """
    places = pc.index_in(selection["uid"].combine_chunks(), value_set=samples["uid"].combine_chunks())
    if places.null_count:
        gone = pc.filter(selection["uid"], pc.is_null(places))[0].as_py()
        raise DataError(f"the selection keeps {gone}, which is not among the images; run filter again")
    repeats = selection["repeats"].to_numpy().astype(np.int64)
    if stop > int(repeats.sum()):
        raise DataError(f"the selection has {int(repeats.sum())} rows, not {stop}; run filter again")
    row = np.repeat(np.arange(len(repeats)), repeats)[start:stop]
    copy = np.arange(start, stop) - (np.cumsum(repeats) - repeats)[row]
    table = samples.take(pa.array(places.to_numpy(zero_copy_only=False)[row]))
    uids = table["uid"].to_pylist()
    many = (repeats[row] > 1).tolist()
    keys = [f"{u}-{c}" if m else u for u, c, m in zip(uids, copy.tolist(), many, strict=True)]
    return table.append_column("key", pa.array(keys, pa.string()))


def as_dicts(table: pa.Table, names: Sequence[str]) -> list[dict[str, object]]:
    """Rows as plain values for JSON; a float32 reads as the shortest decimal that gives it back."""
    columns = {}
    for name in names:
        column = table[name]
        if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
            column = pc.cast(pc.cast(pc.cast(column, pa.float32()), pa.string()), pa.float64())
        columns[name] = column
    return pa.table(columns).to_pylist() if columns else [{}] * len(table)
