"""Rows that stand for the whole pool: all of them, or those whose uids hash lowest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.dataset.uid import halves, mix64

LIMIT = 1_000_000
"""Rows that are held; a pool with no more of them is measured exactly."""

SLACK = 1.25
"""How far the held rows may outgrow the limit before they are cut back to it."""

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class SampledRows:
    """m rows of the pool, in order of shards and of rows within them.

    Attributes:
        shard: which of the shards, int32 (m,).
        row: which of its samples, int32 (m,).
        lead: the first 64 bits of the uid, uint64 (m,).
        values: column → float64 (m,), NaN for missing.
        rows: rows of the pool.
    """

    shard: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    lead: npt.NDArray[np.uint64]
    values: Mapping[str, Floats]
    rows: int

    def __len__(self) -> int:
        return len(self.lead)

    @property
    def exact(self) -> bool:
        """Whether these are all rows."""
        return len(self) == self.rows


class RowSampler:
    """Collects at most ``limit`` rows, the same ones however they are cut into shards.

    Memory: 1.25 * limit * (24 + 8 * columns) bytes, twice that while it is cut back, and one shard; with
    the default limit 30 MB and 10 MB for each column, twice.
    """

    def __init__(self, columns: Sequence[str], limit: int = LIMIT) -> None:
        self.columns = tuple(columns)
        self.limit = limit
        self.rows = 0
        self._cutoff = np.uint64(2**64 - 1)
        self._parts: list[dict[str, npt.NDArray[np.generic]]] = []
        self._held = 0

    def add(self, shard: int, uids: pa.Array | pa.ChunkedArray, values: Mapping[str, Floats]) -> None:
        """Offer the rows of a shard.

        Args:
            shard: its number; shards come in ascending order.
            uids: 32 hex digits each, (n,).
            values: of every column, float64 (n,), NaN for missing.
        """
        both = halves(uids)
        self.rows += len(both)
        draw = hash_uids(both["f0"], both["f1"])
        taken = np.flatnonzero(draw <= self._cutoff)
        part: dict[str, npt.NDArray[np.generic]] = {
            "draw": draw[taken],
            "lead": both["f0"][taken],
            "shard": np.full(len(taken), shard, np.int32),
            "row": taken.astype(np.int32),
        }
        self._parts.append(part | {f"={name}": values[name][taken] for name in self.columns})
        self._held += len(taken)
        if self._held > SLACK * self.limit:
            self._cut()

    def sampled_rows(self) -> SampledRows:
        """What was collected."""
        self._cut()
        if not self._parts:
            self.add(0, pa.array([], pa.string()), {name: np.empty(0) for name in self.columns})
        (held,) = self._parts
        return SampledRows(
            shard=held["shard"].astype(np.int32),
            row=held["row"].astype(np.int32),
            lead=held["lead"].astype(np.uint64),
            values={name: held[f"={name}"].astype(np.float64) for name in self.columns},
            rows=self.rows,
        )

    def _cut(self) -> None:
        if not self._parts:
            return
        held = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        if self._held > self.limit:
            lowest = np.sort(np.argpartition(held["draw"], self.limit - 1)[: self.limit])
            held = {name: array[lowest] for name, array in held.items()}
            self._cutoff = held["draw"].max()
        self._parts, self._held = [held], len(held["draw"])


def hash_uids(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A draw for every uid from its two halves, uint64 (n,): SplitMix64's finaliser.

    Not the uid itself: its leading bits decide the shard.
    """
    return mix64(low + high * np.uint64(0x9E3779B97F4A7C15))
