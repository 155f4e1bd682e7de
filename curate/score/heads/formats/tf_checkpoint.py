"""TensorFlow's checkpoint bundle: an index (a LevelDB table of protocol buffers) and shards of bytes.

Format: ``tensorflow/core/protobuf/tensor_bundle.proto`` and LevelDB's ``table_format.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.score.heads.formats.protobuf import fields, message, messages, number, varint

DTYPES: Mapping[int, str] = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
"""TensorFlow's numbers of the types that weights come in."""

_FOOTER = 48
_MAGIC = bytes.fromhex("57fb808b247547db")
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
    if crc is not None and masked(crc32c(raw)) != crc:
        raise ValueError(f"{name}: its bytes are damaged")
    return np.frombuffer(raw, dtype).reshape(shape)


def table_entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table, in its order.

    Raises:
        ValueError: not a whole table, or a compressed one.
    """
    if len(table) < _FOOTER or table[-8:] != _MAGIC:
        raise ValueError("not a table of a checkpoint, or cut short")
    _, at = _handle(table, len(table) - _FOOTER)
    (offset, size), _ = _handle(table, at)
    for _, handle in _block_entries(_block(table, offset, size)):
        (offset, size), _ = _handle(handle, 0)
        yield from _block_entries(_block(table, offset, size))


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(table: bytes, offset: int, size: int) -> bytes:
    """A block without its type and CRC."""
    stored = table[offset : offset + size + 5]
    if len(stored) < size + 5:
        raise ValueError("a block is cut short")
    if stored[size] != 0:
        raise ValueError("a block is compressed; TensorFlow writes them plain")
    if masked(crc32c(stored[: size + 1])) != int.from_bytes(stored[size + 1 :], "little"):
        raise ValueError("a block is damaged")
    return stored[:size]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries share the first bytes of the key before them."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if len(block) < 4 or end < 0:
        raise ValueError("a block is cut short")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        fresh, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or at + fresh + size > end:
            raise ValueError("an entry is cut short")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + size]
        at += fresh + size


def masked(crc: int) -> int:
    """How LevelDB and TensorFlow store a CRC."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
