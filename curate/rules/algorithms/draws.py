"""Seeded randomness that belongs to a row: a function of its uid, of nothing else in the pool.

So a draw does not depend on shards, order, threads, or which other rows there are. Rules of different
names draw independently; experiments whose rule has the same name and seed draw alike, so that their
selections are nested where the fractions are.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.dataset.uid import usable_halves

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def salt_of(rule: str, seed: int) -> int:
    """64 bits that tell the draws of one rule from those of another."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{rule}".encode(), digest_size=8).digest(), "little")


def words_of(uids: pa.Array | pa.ChunkedArray, salt: int) -> Words:
    """64 random bits of each uid, shape (n,); all that are no uid have the same."""
    pairs = usable_halves(uids)
    return _mixed(_mixed(pairs["f0"] ^ np.uint64(salt)) ^ pairs["f1"])


def uniforms(words: Words, draw: int | npt.NDArray[np.integer] = 0) -> Floats:
    """The ``draw``-th number of each row's sequence, in (0, 1), float64, shape (n,)."""
    with np.errstate(over="ignore"):
        step = (np.asarray(draw).astype(np.uint64) + np.uint64(1)) * _GOLDEN
        mixed = _mixed(words + step)
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def exponentials(words: Words, draw: int | npt.NDArray[np.integer] = 0) -> Floats:
    """Draws of the standard exponential distribution, of ``uniforms``."""
    return -np.log(uniforms(words, draw))


def _mixed(words: Words) -> Words:
    """The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable … generators, 2014)."""
    with np.errstate(over="ignore"):
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
