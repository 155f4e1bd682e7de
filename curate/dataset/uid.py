"""The 128-bit identity of a sample and the shard that holds it.

``uid = md5(text + url)`` as 32 hex digits: the key of cc2dataset and DataComp. MD5 spreads evenly,
so equal ranges of the uid space hold equal shares of a dataset, and sorting by uid shuffles hosts.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_HEX = re.compile(r"[0-9a-f]{32}")
SUBSET_DTYPE = np.dtype("u8,u8")
"""DataComp's subset file: the two 64-bit halves of each uid, sorted."""


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


def halves(uids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.void]:
    """Hex uids as DataComp's ``u8,u8`` records, shape (n,), in the order given."""
    out = np.empty(len(uids), dtype=SUBSET_DTYPE)
    raw = np.frombuffer(bytes.fromhex("".join(uids.to_pylist())), dtype=">u8").reshape(-1, 2)
    out["f0"], out["f1"] = raw[:, 0], raw[:, 1]
    return out


def from_halves(values: npt.NDArray[np.void]) -> pa.Array:
    """``u8,u8`` records as 32-hex strings, shape (n,)."""
    names = values.dtype.names or ("f0", "f1")
    raw = np.stack([values[names[0]], values[names[1]]], axis=1).astype(">u8")
    text = raw.tobytes().hex()
    return pa.array([text[i : i + 32] for i in range(0, len(text), 32)], pa.string())
