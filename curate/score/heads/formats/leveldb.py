"""LevelDB's table: a sorted file of keys and values, in blocks with checksums.

Format: LevelDB's ``table_format.md``. TensorFlow keeps the index of a checkpoint in one.
"""

from __future__ import annotations

from collections.abc import Iterator

from curate.score.heads.formats.protobuf import varint

_FOOTER = 48
_MAGIC = bytes.fromhex("57fb808b247547db")


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
    if mask_crc(crc32c(stored[: size + 1])) != int.from_bytes(stored[size + 1 :], "little"):
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


def mask_crc(crc: int) -> int:
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
