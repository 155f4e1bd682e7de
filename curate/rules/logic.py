"""Three-valued logic over rows: how verdicts of rules combine, and which rule a row fell to.

A verdict is pass, fail or missing, by Kleene: a missing value stays missing wherever it could
decide, also under ``not``; only pass keeps a row. In a ``then`` the first part that a row does not
pass decides: the parts behind it are not asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.config.filters import Keep

Mask = npt.NDArray[np.bool_]
Copies = npt.NDArray[np.int64]


class Truth(NamedTuple):
    """Verdicts of one rule, or of a combination, on the rows of a shard.

    Attributes:
        passed: bool, shape (n,).
        failed: bool, shape (n,); a row that neither passed nor failed is missing.
    """

    passed: Mask
    failed: Mask

    @property
    def missing(self) -> Mask:
        """Rows without a verdict, shape (n,)."""
        return ~(self.passed | self.failed)


def truth_of(values: pa.Array | pa.ChunkedArray) -> Truth:
    """A nullable boolean column as verdicts: NULL is missing."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    truths = [_truth_of(chunk) for chunk in chunks if len(chunk)]
    if len(truths) == 1:
        return truths[0]
    nobody = np.empty(0, bool)
    passed, failed = ([nobody, *(t[i] for t in truths)] for i in (0, 1))
    return Truth(np.concatenate(passed), np.concatenate(failed))


def _truth_of(values: pa.Array) -> Truth:
    valid, bits = values.buffers()
    passed = _unpacked(bits, values)
    if valid is None or not values.null_count:
        return Truth(passed, ~passed)
    there = _unpacked(valid, values)
    return Truth(passed & there, ~passed & there)


def _unpacked(bits: pa.Buffer, values: pa.Array) -> Mask:
    """A bit for each row as a byte for each; Arrow's own way takes five times as long."""
    end = values.offset + len(values)
    packed = np.frombuffer(bits, np.uint8, -(-end // 8))
    return np.unpackbits(packed, count=end, bitorder="little")[values.offset :].view(bool)


def constant(value: bool, rows: int) -> Truth:
    """One verdict for all of so many rows."""
    return Truth(np.full(rows, value), np.full(rows, not value))


def combine(keep: Keep, verdicts: Mapping[str, Truth]) -> Truth:
    """The verdict of a combination of rule names by ``all``, ``any``, ``not`` and ``then``."""
    if isinstance(keep, str):
        return verdicts[keep]
    ((word, inner),) = keep.items()
    if word == "not":
        truth = combine(inner, verdicts)
        return Truth(truth.failed, truth.passed)
    parts = [combine(part, verdicts) for part in inner]
    if word == "then":
        return _first_to_fail(parts)
    passed = np.stack([p.passed for p in parts])
    failed = np.stack([p.failed for p in parts])
    if word == "all":
        return Truth(np.logical_and.reduce(passed), np.logical_or.reduce(failed))
    return Truth(np.logical_or.reduce(passed), np.logical_and.reduce(failed))


def _first_to_fail(parts: Sequence[Truth]) -> Truth:
    left = parts[0].passed.copy()
    failed = parts[0].failed.copy()
    for part in parts[1:]:
        failed |= left & part.failed
        left &= part.passed
    return Truth(left, failed)


def in_scope(scope: Sequence[Keep], verdicts: Mapping[str, Truth], rows: int) -> Mask:
    """Which rows passed all parts of a scope, bool, shape (rows,)."""
    left = np.ones(rows, bool)
    for part in scope:
        left &= combine(part, verdicts).passed
    return left


def copies(keep: Keep, verdicts: Mapping[str, Truth], repeats: Mapping[str, Copies], rows: int) -> Copies:
    """How often each kept row is there, int64, shape (rows,).

    A rule without a count has 1. Parts of ``all`` and ``then`` multiply; of the parts of an ``any`` that
    a row passes, the largest counts; a ``not`` counts nothing. Of no meaning for rows that are not kept.
    """
    if isinstance(keep, str):
        return repeats.get(keep, np.ones(rows, np.int64))
    ((word, inner),) = keep.items()
    found = np.ones(rows, np.int64)
    if word == "not":
        return found
    for part in inner:
        mine = copies(part, verdicts, repeats, rows)
        if word == "any":
            found = np.maximum(found, np.where(combine(part, verdicts).passed, mine, 1))
        else:
            found = found * mine
    return found


def conjuncts(keep: Keep) -> list[Keep]:
    """What must hold, one after the other: ``all`` and ``then`` within each other are one sequence."""
    if isinstance(keep, dict):
        ((word, inner),) = keep.items()
        if word in ("all", "then"):
            return [found for part in inner for found in conjuncts(part)]
    return [keep]


def written(keep: Keep) -> str:
    """A combination on one line, e.g. ``any(a, not(b))``."""
    if isinstance(keep, str):
        return keep
    ((word, inner),) = keep.items()
    parts = [inner] if word == "not" else inner
    return f"{word}({', '.join(written(p) for p in parts)})"


def has_not(keep: Keep) -> bool:
    """Whether a combination turns a verdict round anywhere."""
    if isinstance(keep, str):
        return False
    ((word, inner),) = keep.items()
    return word == "not" or any(has_not(part) for part in inner)


def decided_by(name: str, keep: Keep, verdicts: Mapping[str, Truth], kept: Mask) -> Mask:
    """Dropped rows that this rule alone decides: with another verdict of it they would be kept.

    Returns:
        bool, shape (n,). In a conjunction these are the rows that only this rule drops.
    """
    rows = len(kept)
    would = combine(keep, {**verdicts, name: constant(True, rows)}).passed
    if has_not(keep):
        would = would | combine(keep, {**verdicts, name: constant(False, rows)}).passed
    return would & ~kept
