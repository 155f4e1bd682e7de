"""The 128-bit identity of a sample and the shard that holds it.

``uid = md5(text + url)`` as 32 hex digits: the key of cc2dataset and DataComp. MD5 spreads evenly,
so equal ranges of the uid space hold equal shares of a dataset, and sorting by uid shuffles hosts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import UserError

_HEX = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(r"[0-9a-f]{1,32}")
SUBSET_DTYPE = np.dtype("u8,u8")
"""DataComp's subset file: the two 64-bit halves of each uid, sorted."""
HALVES = pa.binary(SUBSET_DTYPE.itemsize)
"""The same in a column of Arrow."""


def uid_of(text: str, url: str) -> str:
    """The uid of one (text, URL) pair; lone surrogates are encoded as they are."""
    return hashlib.md5((text + url).encode("utf-8", "surrogatepass")).hexdigest()


def is_uid(value: str) -> bool:
    """Whether a string is 32 lower-case hex digits."""
    return _HEX.fullmatch(value) is not None


def shard_of(uid: str, shards: int) -> int:
    """Index of the shard that holds a uid: its place in the uid space cut in equal ranges."""
    return (int(uid[:16], 16) * shards) >> 64


def lower_bound(shard: int, shards: int) -> str:
    """Smallest uid of a shard, 32 hex digits. ``lower_bound(shards, shards)`` is past every uid."""
    if shard >= shards:
        return "g"  # sorts after every hex digit
    first = -((-shard << 64) // shards)
    return f"{first:016x}{0:016x}"


def complete_uid(
    prefix: str, shards: int, uids_of: Callable[[int], pa.Array | pa.ChunkedArray | None], place: str
) -> str:
    """The one uid that begins with these digits; a whole uid is itself, whether it is there or not.

    Args:
        prefix: 1 to 32 lower-case hex digits.
        shards: how many there are.
        uids_of: number of a shard → its uids, None when it has none; only shards where such uids can be are
            asked for, and none after a second uid is found.
        place: what asks, for messages.

    Raises:
        UserError: not digits of a uid, or those of no uid, or of several.
    """
    if is_uid(prefix):
        return prefix
    if _PREFIX.fullmatch(prefix) is None:
        raise UserError(
            f"{place}: '{prefix}' is not a uid (32 hex digits, lower case) nor the beginning of one"
        )
    found: set[str] = set()
    for shard in range(shard_of(prefix.ljust(32, "0"), shards), shard_of(prefix.ljust(32, "f"), shards) + 1):
        uids = uids_of(shard)
        if uids is not None:
            found.update(uids.filter(pc.starts_with(uids, prefix)).slice(0, 2).to_pylist())
        if len(found) > 1:
            some = " and ".join(sorted(found)[:2])
            raise UserError(f"{place}: several uids begin with '{prefix}': {some}; give more digits")
    if not found:
        raise UserError(f"{place}: no uid begins with '{prefix}'")
    return found.pop()


def mix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser: 64 well mixed bits of each number."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), np.uint64)


def halves(uids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.void]:
    """Uids as DataComp's ``u8,u8`` records, shape (n,), in the order given.

    Args:
        uids: hex digits, or ``HALVES``.

    Raises:
        ValueError: one is not 32 hex digits, or null.
    """
    return _joined(uids, _strictly)


def usable_halves(
    uids: pa.Array | pa.ChunkedArray, rows: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.void]:
    """The same of some rows; whatever is not 32 lower-case hex digits becomes zeros.

    Args:
        rows: which ones, bool, shape (n,); None: all.
    """
    if rows is None:
        return _joined(uids, _leniently)
    at = np.cumsum([0, *(len(chunk) for chunk in _chunks(uids))])
    parts = [
        _leniently(chunk, np.flatnonzero(rows[start : start + len(chunk)]))
        for start, chunk in zip(at, _chunks(uids), strict=False)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, SUBSET_DTYPE), *parts])


def moved(records: npt.NDArray[np.void], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.void]:
    """The records of these rows, as complex numbers, which have their size: five times as fast as records."""
    return records.view(np.complex128)[rows].view(SUBSET_DTYPE)


def packed(uids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Hex uids as ``HALVES``; zeros for whatever is none."""
    return pa.FixedSizeBinaryArray.from_buffers(HALVES, len(uids), [None, pa.py_buffer(usable_halves(uids))])


def _chunks(uids: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return uids.chunks if isinstance(uids, pa.ChunkedArray) else [uids]


def _joined(
    uids: pa.Array | pa.ChunkedArray, read: Callable[[pa.Array, None], npt.NDArray[np.void]]
) -> npt.NDArray[np.void]:
    chunks = _chunks(uids)
    if len(chunks) == 1 and uids.type == HALVES:
        return read(chunks[0], None)
    out = np.empty(len(uids), dtype=SUBSET_DTYPE)
    at = 0
    for chunk in chunks:
        for start in range(0, len(chunk), _AT_ONCE):
            part = chunk.slice(start, _AT_ONCE)
            out[at : at + len(part)] = read(part, None)
            at += len(part)
    return out


def _strictly(uids: pa.Array, _: None = None) -> npt.NDArray[np.void]:
    if uids.type == HALVES:
        return _stored(uids)
    digits = _digits(uids)
    values = np.take(_BYTES, digits.view(np.uint16)) if digits is not None else None
    if values is None or (values.size and values.max() >= _NO_BYTE):
        raise ValueError("a uid is not 32 hex digits")
    return _records(values.astype(np.uint8))


def _leniently(uids: pa.Array, rows: npt.NDArray[np.intp] | None = None) -> npt.NDArray[np.void]:
    if uids.type == HALVES:
        return _stored(uids) if rows is None else moved(_stored(uids), rows)
    try:
        digits = _digits(uids)
    except pa.ArrowException:
        digits = None
    if digits is None:
        digits = _digits(_of_32_bytes(uids))
        assert digits is not None
    values = np.take(_BYTES, (digits if rows is None else digits.take(rows, axis=0)).view(np.uint16))
    if values.size and values.max() > _LAST_LOWER:
        values[(values > _LAST_LOWER).any(axis=1)] = 0
    return _records(values.astype(np.uint8))


def _stored(uids: pa.Array) -> npt.NDArray[np.void]:
    """``HALVES`` as records that share their memory."""
    return np.frombuffer(uids.buffers()[1], SUBSET_DTYPE, len(uids), uids.offset * SUBSET_DTYPE.itemsize)


def _digits(uids: pa.Array) -> npt.NDArray[np.uint64] | None:
    """The digits of uids, shape (n, 4), in the array's memory; None when one has not 32 bytes or is null."""
    texts = _plain(uids)
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if texts.null_count or (np.diff(ends) != 32).any():
        return None
    if not len(texts):
        return np.empty((0, 4), np.uint64)
    return np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].view(np.uint64).reshape(-1, 4)


def _of_32_bytes(uids: pa.Array) -> pa.Array:
    """With zeros in place of what is longer, shorter, null, or no text."""
    try:
        texts = _plain(uids).cast(pa.binary())
    except pa.ArrowException:
        return pa.array(["0" * 32] * len(uids))
    fine = pc.equal(pc.binary_length(texts), 32).fill_null(False)
    return pc.if_else(fine, texts, b"0" * 32)


def _plain(uids: pa.Array) -> pa.Array:
    """As texts, or as bytes that may be no texts, with offsets of 32 bits.

    Raises:
        pa.ArrowException: they are neither.
    """
    kind = uids.type
    if kind in (pa.string(), pa.binary()):
        return uids
    raw = (
        pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind)
    )
    return uids.cast(pa.binary() if raw else pa.string())


def _records(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """Records of big-endian bytes, shape (16 n,) or (n, 16)."""
    return values.reshape(-1).view(">u8").astype(np.uint64).view(SUBSET_DTYPE)


def from_halves(values: npt.NDArray[np.void]) -> pa.Array:
    """``u8,u8`` records as 32-hex strings, shape (n,); at most 2**26 - 1 at once."""
    names = values.dtype.names or ("f0", "f1")
    raw = np.stack([values[names[0]], values[names[1]]], axis=1).astype(">u8")
    text = _PAIRS[raw.view(np.uint8)]
    ends = np.arange(0, 32 * len(values) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(ends), pa.py_buffer(text.tobytes()))


_AT_ONCE = 1 << 16
"""Uids that are looked at in one go; four times as fast as a quarter of a million, which no cache holds."""
_PAIRS = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
"""Byte → its two digits."""
_LAST_LOWER, _NO_BYTE = 255, 512
_BYTES = np.full(1 << 16, _NO_BYTE, np.uint16)
"""Two digits → byte, 256 more where one is upper-case, ``_NO_BYTE`` for what is no pair of digits."""
for _style, _more in (("{:02X}", 256), ("{:02x}", 0)):
    _BYTES[np.frombuffer("".join(map(_style.format, range(256))).encode(), np.uint16)] = _more + np.arange(
        256
    )
