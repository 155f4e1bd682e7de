"""Rows of existing embeddings: what is wrong with them, in which order they lie, which sample gets which.

No IO: numpy in, numpy out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.clip.vectors import Stored, Vectors
from curate.dataset.uid import lower_bound
from curate.reasons import EmbedReason

SMALLEST_NORM = 1e-6
"""A shorter vector has no direction that could be meant."""

SAME = 0.99
"""Two vectors of one sample with at least this cosine are the same up to rounding and image resizing."""

Records = npt.NDArray[np.void]


def record_dtype(dim: int, modalities: Sequence[str]) -> np.dtype[Any]:
    """A stored row: uid, cosine before rounding, 1 if a vector is bad, the unit vectors (NaN if bad)."""
    head = [("f0", "<u8"), ("f1", "<u8"), ("similarity", "<f4"), ("bad", "<u4")]
    return np.dtype([*head, *((modality, "<f2", (dim,)) for modality in modalities)])


def fill(records: Records, uids: npt.NDArray[np.void], vectors: Mapping[str, Vectors]) -> None:
    """Write n rows: vectors of unit length, rounded after their cosine was taken.

    Args:
        records: (n,) of ``record_dtype``, overwritten.
        uids: ``u8,u8`` (n,).
        vectors: modality → float32 (n, dim) of any length; zero and not finite ones are bad.
    """
    units = {modality: _unit(found) for modality, found in vectors.items()}
    records["f0"], records["f1"] = uids["f0"], uids["f1"]
    records["similarity"] = np.nan
    if len(units) == 2:
        records["similarity"] = np.einsum("ij,ij->i", *units.values())
    records["bad"] = 0
    for modality, found in units.items():
        records["bad"] |= np.isnan(found[:, 0])
        records[modality] = found


def _unit(vectors: Vectors) -> Vectors:
    with np.errstate(all="ignore"):
        length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        good = np.isfinite(length) & (length >= SMALLEST_NORM)
        out: Vectors = vectors / np.where(good, length, np.nan).astype(np.float32)[:, None]
        out[~good] = np.nan
    return out


def sorted_order(records: Records) -> npt.NDArray[np.int64]:
    """The order by uid, rows of one uid as they came: int64 (n,)."""
    return np.lexsort((records["f1"], records["f0"])).astype(np.int64)


def shard_bounds(first_halves: npt.NDArray[np.uint64], shards: int) -> npt.NDArray[np.int64]:
    """Where every shard begins among sorted rows: int64 (shards + 1,), the last is n."""
    lows = np.array([int(lower_bound(shard, shards)[:16], 16) for shard in range(shards)], np.uint64)
    return np.append(np.searchsorted(first_halves, lows), len(first_halves)).astype(np.int64)


@dataclass(frozen=True)
class Joined:
    """The embeddings of n samples.

    Attributes:
        vectors: modality → float16 (n, dim), NaN where there is none.
        similarity: float32 (n,), NaN where there is none, or only one modality.
        reasons: an EmbedReason or None, (n,).
        counts: ``repeated`` rows beyond a sample's first, and ``unused`` rows that are no sample's.
    """

    vectors: dict[str, Stored]
    similarity: npt.NDArray[np.float32]
    reasons: list[str | None]
    counts: Counter[str]


def join(uids: npt.NDArray[np.void], records: Records, dim: int) -> Joined:
    """Give every sample its row.

    Of several rows of one uid the first counts, if they agree; a good row before a bad one.

    Args:
        uids: ``u8,u8`` (n,), ascending, unique.
        records: (m,) of ``record_dtype``, in any order.
        dim: of the vectors.
    """
    n = len(uids)
    modalities = [name for name in ("image", "text") if name in (records.dtype.names or ())]
    out = Joined(
        {modality: np.full((n, dim), np.nan, np.float16) for modality in modalities},
        np.full(n, np.nan, np.float32),
        [EmbedReason.NOT_STORED.value] * n,
        Counter(),
    )
    place = np.searchsorted(_bytes(uids), _bytes(records)) if n else np.zeros(len(records), np.int64)
    place = np.minimum(place, max(n - 1, 0))
    ours = (uids["f0"][place] == records["f0"]) & (uids["f1"][place] == records["f1"]) if n else place < 0
    out.counts["unused"] = int((~ours).sum())
    rows = np.flatnonzero(ours)
    rows = rows[np.lexsort((rows, records["bad"][rows], place[rows]))]
    target = place[rows]
    first = np.ones(len(rows), np.bool_)
    first[1:] = target[1:] != target[:-1]
    out.counts["repeated"] = int((~first).sum())
    taken, at = rows[first], target[first]
    for modality, vectors in out.vectors.items():
        vectors[at] = records[modality][taken]
    out.similarity[at] = records["similarity"][taken]
    for row, bad in zip(at.tolist(), records["bad"][taken].tolist(), strict=True):
        out.reasons[row] = EmbedReason.BAD_VECTOR.value if bad else None
    _set_conflicts(out, records, rows[~first], target[~first])
    return out


def _set_conflicts(
    out: Joined, records: Records, rows: npt.NDArray[np.int64], target: npt.NDArray[np.int64]
) -> None:
    """Take their embeddings from samples with further good rows that say something else."""
    good = records["bad"][rows] == 0
    rows, target = rows[good], target[good]
    if not len(rows):
        return
    differs = np.zeros(len(rows), np.bool_)
    for modality, ours in out.vectors.items():
        theirs = records[modality][rows].astype(np.float32)
        cosine = np.einsum("ij,ij->i", ours[target].astype(np.float32), theirs)
        differs |= ~(cosine >= SAME)
    for row in np.unique(target[differs]).tolist():
        out.similarity[row] = np.nan
        for vectors in out.vectors.values():
            vectors[row] = np.nan
        out.reasons[row] = EmbedReason.CONFLICTING_VECTORS.value


def _bytes(uids: npt.NDArray[np.void]) -> npt.NDArray[np.bytes_]:
    """uids as 16 bytes that compare like their hex digits."""
    out = np.empty((len(uids), 2), ">u8")
    out[:, 0], out[:, 1] = uids["f0"], uids["f1"]
    return out.view("S16").reshape(-1)
