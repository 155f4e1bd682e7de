"""The Arrow types in which stored columns are seen."""

from __future__ import annotations

import pyarrow as pa


def scan_type(stored: pa.DataType) -> pa.DataType:
    """The Arrow type in which DuckDB sees a stored column: it reads no half floats."""
    if pa.types.is_float16(stored):
        return pa.float32()
    if pa.types.is_string_view(stored):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(stored) else stored


def plain_type(stored: pa.DataType) -> pa.DataType:
    """The type of ``scan_type`` without a dictionary, which may differ from shard to shard."""
    kind = scan_type(stored)
    return kind.value_type if pa.types.is_dictionary(kind) else kind
