"""TensorFlow's checkpoint bundle: an index (a LevelDB table of protocol buffers) and shards of bytes.

Format: ``tensorflow/core/protobuf/tensor_bundle.proto``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.score.heads.formats.leveldb import crc32c, mask_crc, table_entries
from curate.score.heads.formats.protobuf import fields, message, messages, number

DTYPES: Mapping[int, str] = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
"""TensorFlow's numbers of the types that weights come in."""

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def read_bundle(index: bytes, shards: Mapping[int, bytes]) -> dict[str, npt.NDArray[Any]]:
    """Numeric variables by their object path (``layer_with_weights-2/kernel``).

    Every tensor's bytes are checked against their CRC.

    Raises:
        ValueError: not a whole bundle, or bytes that are not those it was written with.
    """
    out: dict[str, npt.NDArray[Any]] = {}
    for key, entry in table_entries(index):
        name = key.decode("utf-8", "replace")
        if not name.endswith(_SUFFIX):
            continue
        dtype = DTYPES.get(number(entry, 1))
        if dtype is None:
            continue
        shape = [number(dim, 1) for dim in messages(message(entry, 2), 2)]
        out[name.removesuffix(_SUFFIX)] = _tensor(name, entry, np.dtype(dtype), shape, shards)
    return out


def _tensor(
    name: str, entry: bytes, dtype: np.dtype[Any], shape: list[int], shards: Mapping[int, bytes]
) -> npt.NDArray[Any]:
    shard, start, size = (number(entry, field) for field in (3, 4, 5))
    raw = shards.get(shard, b"")[start : start + size]
    count = int(np.prod(shape, dtype=np.int64))
    if len(raw) != size or count * dtype.itemsize != size:
        raise ValueError(f"{name}: its bytes are missing")
    crc = next((value for n, value in fields(entry) if n == 6), None)
    if crc is not None and mask_crc(crc32c(raw)) != crc:
        raise ValueError(f"{name}: its bytes are damaged")
    return np.frombuffer(raw, dtype).reshape(shape)
