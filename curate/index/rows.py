"""Which vectors go into an index, in which order, and how they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.clip.vectors import Vectors, open_vectors
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.selections import Selection
from curate.dataset.uid import SUBSET_DTYPE, halves
from curate.dataset.workspace import Workspace
from curate.errors import DataError
from curate.index.recall import Rows

BLOCK = 65_536
"""Vectors read at once."""
NOT_EMBEDDED = "not_embedded"
"""The reason of selected samples whose shard has no committed embeddings."""


@dataclass(frozen=True)
class Kept:
    """The rows of one shard that go into the index.

    Attributes:
        rows: their rows in the shard's embeddings, int64 (n,), ascending.
        uids: their uids, string (n,).
        left_out: reason → selected samples without a vector.
    """

    rows: Rows
    uids: pa.Array
    left_out: Counter[str]


@dataclass(frozen=True)
class Plan:
    """All shards of an index in order; 16 bytes a shard, nothing per row.

    Attributes:
        shards: names, in uid order.
        first: row of the index at which each shard begins, int64 (shards + 1,).
        left_out: reason → selected samples without a vector.
    """

    shards: tuple[str, ...]
    first: Rows
    left_out: Counter[str]

    @property
    def rows(self) -> int:
        """Vectors of the index."""
        return int(self.first[-1])


def kept_rows(workspace: Workspace, selection: Selection, alias: str, shard: str) -> Kept:
    """Match a shard's selection with its embeddings.

    Raises:
        DataError: a selected uid is not among the shard's samples.
    """
    selected = selection.read(shard)["uid"]
    path = Family.embeddings(alias).path(shard)
    table = workspace.read_table(path, ["uid", "reason"])
    found = pc.index_in(selected, value_set=table["uid"])
    if found.null_count:
        raise DataError(
            f"{workspace.url}/{path}: {found.null_count} selected samples are not there; "
            "run `curate embed` again"
        )
    rows = np.sort(found.to_numpy().astype(np.int64))
    reasons = table["reason"].take(pa.array(rows))
    embedded = pc.is_null(reasons)
    left_out = Counter(reasons.drop_null().to_pylist())
    rows = rows[embedded.to_numpy()]
    return Kept(rows, table["uid"].take(pa.array(rows)).combine_chunks(), left_out)


def plan_rows(
    workspace: Workspace,
    selection: Selection,
    alias: str,
    shards: dict[str, bool],
    uids: npt.NDArray[Any] | None,
) -> Plan:
    """Count the rows of every shard, or with ``uids`` write their uids there, ``u8,u8`` (rows,).

    Args:
        workspace: where selections and embeddings are.
        selection: whose rows.
        alias: whose embeddings.
        shards: names of the selected shards → whether they are embedded.
        uids: filled in row order.
    """
    first = [0]
    left_out: Counter[str] = Counter()
    names = sorted(shards)
    for shard in names:
        if not shards[shard]:
            left_out[NOT_EMBEDDED] += selection.kept[shard]
            first.append(first[-1])
            continue
        kept = kept_rows(workspace, selection, alias, shard)
        left_out.update(kept.left_out)
        if uids is not None and len(kept.rows):
            uids[first[-1] : first[-1] + len(kept.rows)] = halves(kept.uids)
        first.append(first[-1] + len(kept.rows))
    return Plan(tuple(names), np.array(first, np.int64), left_out)


def sample_rows(plan: Plan, queries: int, training: int, seed: int) -> tuple[Rows, Rows]:
    """Distinct rows drawn evenly from the whole index: some to ask with, others to train on; both sorted."""
    size = min(plan.rows, queries + training)
    drawn = (
        np.random.default_rng(seed).choice(plan.rows, size, replace=False) if size else np.empty(0, np.int64)
    )
    return np.sort(drawn[:queries]).astype(np.int64), np.sort(drawn[queries:]).astype(np.int64)


def blocks(
    workspace: Workspace, selection: Selection, alias: str, modality: str, plan: Plan, dim: int
) -> Iterator[tuple[int, Vectors]]:
    """(first row, unit vectors float32 (n, dim)) of all vectors of an index, in its row order."""
    for i, shard in enumerate(plan.shards):
        if plan.first[i] == plan.first[i + 1]:
            continue
        rows = kept_rows(workspace, selection, alias, shard).rows
        with open_vectors(workspace, layout.embedding(alias, modality, shard), dim=dim) as vectors:
            for start in range(0, len(rows), BLOCK):
                part = vectors[rows[start : start + BLOCK]].astype(np.float32)
                yield int(plan.first[i]) + start, _unit(part, workspace, alias, shard)


def gather(
    workspace: Workspace, selection: Selection, alias: str, modality: str, plan: Plan, dim: int, wanted: Rows
) -> Vectors:
    """The unit vectors of sorted rows of the index, float32 (n, dim); reads only their shards."""
    out = np.empty((len(wanted), dim), np.float32)
    for i, shard in enumerate(plan.shards):
        here = slice(*np.searchsorted(wanted, plan.first[i : i + 2]))
        if here.start == here.stop:
            continue
        rows = kept_rows(workspace, selection, alias, shard).rows
        with open_vectors(workspace, layout.embedding(alias, modality, shard), dim=dim) as vectors:
            part = vectors[rows[wanted[here] - plan.first[i]]].astype(np.float32)
        out[here] = _unit(part, workspace, alias, shard)
    return out


def empty_uids(path: Path, rows: int) -> np.memmap[Any, Any]:
    """A mapped npy file for the uids of ``rows`` rows."""
    return np.lib.format.open_memmap(path, mode="w+", dtype=SUBSET_DTYPE, shape=(rows,))


def _unit(vectors: Vectors, workspace: Workspace, alias: str, shard: str) -> Vectors:
    """At length 1: what was rounded to float16 is up to 0.0002 longer or shorter, enough to swap neighbours.

    Raises:
        DataError: a vector has no direction.
    """
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if not (np.isfinite(length) & (length > 0)).all():
        raise DataError(
            f"{workspace.url}/embeddings/{alias}: shard {shard} has NaN vectors without a reason; "
            "run `curate embed` again"
        )
    unit: Vectors = vectors / length.astype(np.float32)[:, None]
    return unit
