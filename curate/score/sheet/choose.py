"""Which samples are shown: the next ones in the uid space from a seeded point.

A uid is a hash, so neighbours in uid order have nothing to do with each other, and any run of them is
a fair draw that does not depend on the order or number of shards. As shards are ranges of uids, the
pictures of a run lie in a few tars, not in one per picture.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from curate.score.sheet.sample import Indices, SampledRows


def starting_point(seed: str) -> np.uint64:
    """A place in the uid space."""
    return np.uint64(int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "big"))


def pick(sampled: SampledRows, rows: Indices, count: int, seed: str) -> Indices:
    """At most ``count`` of some rows.

    Args:
        sampled: the rows of the pool.
        rows: indices into them to choose from.
        count: how many.
        seed: decides where in the uid space to begin.

    Returns:
        Indices, in the order in which the uids follow the starting point.
    """
    distance: npt.NDArray[np.uint64] = sampled.lead[rows] - starting_point(seed)
    if len(rows) > count > 0:
        near = np.argpartition(distance, count - 1)[:count]
        rows, distance = rows[near], distance[near]
    return rows[np.argsort(distance, kind="stable")][:count]
