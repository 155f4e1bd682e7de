"""Which samples a gallery shows, chosen in one pass with a few rows of memory per gallery."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, order=True)
class Pick:
    """A chosen sample. Order: shards in drawn order, then the draw within the shard."""

    rank: int
    draw: float
    shard: str
    row: int


@dataclass
class Gallery:
    """At most ``size`` samples, from as few shards as hold them.

    A shard is a range of hashes, so its samples are a fair draw of all samples: a gallery fills from
    the shards that a seeded permutation puts first and goes on to others only for what is rare.
    """

    size: int
    picks: list[Pick] = field(default_factory=list)
    seen: int = 0

    def offer(
        self, shard: str, rank: int, rows: npt.NDArray[np.int64], draws: npt.NDArray[np.float64]
    ) -> None:
        """Consider rows of a shard.

        Args:
            shard: its name.
            rank: its place in the permutation; each shard has its own.
            rows: row numbers within the samples of the shard, int64, shape (m,).
            draws: float64, shape (m,); the smallest are taken first.
        """
        self.seen += len(rows)
        if not self.size or not len(rows):
            return
        if len(self.picks) == self.size and self.picks[-1].rank < rank:
            return
        order = np.argsort(draws, kind="stable")[: self.size]
        fresh = [Pick(rank, float(draws[i]), shard, int(rows[i])) for i in order]
        self.picks = sorted([*self.picks, *fresh])[: self.size]


def ranks(shards: int, seed: int) -> npt.NDArray[np.int64]:
    """The place of every shard in a seeded permutation, int64, shape (shards,)."""
    return np.argsort(np.random.default_rng(seed).permutation(shards)).astype(np.int64)


def draws(rows: int, seed: int, rank: int) -> npt.NDArray[np.float64]:
    """A seeded number for every row of a shard, float64, shape (rows,)."""
    return np.random.default_rng((seed, rank)).random(rows)
