"""The rule ``semdedup``: SemDeDup (arXiv 2303.09540, section 3; facebookresearch/SemDeDup).

Within a cluster of embeddings the rows are put in order, the one to be kept first, and a row goes when
its cosine with any row before it is greater than 1 - epsilon. As in the paper the row before it may have
gone as well: of a chain of rows that are near to the next one, the first stays. (The README of the
published code says that a lower epsilon prunes more; the code, and this rule, prune more with a higher.)

The published order is by distance to the centroid, the farthest first: ``lowest: <scorer>_similarity``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.config.rules.semdedup import SemDedupRule
from curate.dataset import layout
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import DataError
from curate.rules.contract import Compiling, Learner, RuleFiles
from curate.rules.logic import Mask
from curate.rules.losers import SCHEMA, STEM, Dropping, losers_of
from curate.rules.preference import Preference, preference
from curate.rules.uidfiles import UidSpool, write_uid_file
from curate.samples.database import Database, select
from curate.samples.pool import Batch, UidAt, doubles

PARTS = 256
"""Files that the vectors are dealt to by their cluster: one at a time is in memory."""

_BLOCK = 1024


@dataclass(frozen=True)
class SemDedup(Dropping):
    """A row without an embedding or a cluster has no duplicates and passes."""

    settings: SemDedupRule
    prefer: Preference

    @classmethod
    def compile(cls, settings: SemDedupRule, at: Compiling) -> SemDedup:
        """See ``CompiledRule.compile``."""
        cluster = at.number(settings.cluster, "cluster")
        prefer = preference(at, settings.highest, settings.lowest)
        text = (
            f"one row of those in a {settings.cluster} with a cosine above {1 - settings.epsilon:g} by "
            f"{settings.semdedup}, {prefer.text}"
        )
        return cls(at.name, at.place, settings, text, (cluster, *prefer.expressions), 0, prefer)

    @property
    def vectors(self) -> tuple[tuple[str, str], ...]:
        """The embeddings that are compared."""
        return ((self.settings.semdedup, self.settings.modality),)

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Copies the vectors to scratch files, by cluster."""
        folder = scratch / f"vectors_{files.number}"
        folder.mkdir()
        return _VectorLearner(self, connection, folder, files)


class _VectorLearner(Learner):
    def __init__(self, rule: SemDedup, connection: Database, folder: Path, files: RuleFiles) -> None:
        self.rule, self.connection, self.folder, self.files = rule, connection, folder, files
        self.uids = UidSpool(folder / "uids")
        self.rows = 0
        self.dim: int | None = None

    def add(self, batch: Batch, in_scope: Mask | None) -> None:
        rule = self.rule
        cluster, *values = select(self.connection, batch.table, [e.sql for e in rule.expressions]).columns
        clusters = doubles(cluster)
        ranks = rule.prefer.ranks(values, batch.table["uid"])
        usable = ~np.isnan(clusters) if in_scope is None else in_scope & ~np.isnan(clusters)
        for shard, part in batch.slices():
            if not usable[part].any():
                continue
            rows = np.flatnonzero(usable[part])
            vectors = self._vectors(shard, part.stop - part.start, rows)
            whole = np.isfinite(vectors).all(axis=1)
            rows = rows[whole] + part.start
            self._deal(clusters[rows], ranks[rows], vectors[whole])
            self.uids.add(batch.table["uid"].take(pa.array(rows)))

    def _vectors(self, shard: str, rows: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        path = layout.embedding(*self.rule.vectors[0], shard)
        found = read_vectors(self.files.workspace, path, rows, wanted)
        if self.dim not in (None, found.shape[1]):
            raise DataError(
                f"{self.files.workspace.url}/{path}: vectors of {found.shape[1]} dimensions, those of the "
                f"shards before have {self.dim}; run embed/{self.rule.settings.semdedup} again"
            )
        self.dim = found.shape[1]
        return found

    def _deal(
        self,
        clusters: npt.NDArray[np.float64],
        ranks: npt.NDArray[np.float64],
        vectors: npt.NDArray[np.float16],
    ) -> None:
        """Append rows to the files of their clusters."""
        records = np.empty(len(vectors), _record(vectors.shape[1]))
        records["place"] = np.arange(self.rows, self.rows + len(vectors))
        records["cluster"], records["rank"], records["vector"] = clusters, ranks, vectors
        self.rows += len(vectors)
        number = clusters.astype(np.int64) % PARTS
        order = np.argsort(number, kind="stable")
        edges = np.searchsorted(number[order], np.arange(PARTS + 1))
        for part in np.unique(number).tolist():
            with (self.folder / f"{part}").open("ab") as stream:
                stream.write(records[order[edges[part] : edges[part + 1]]].tobytes())

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        stay = np.arange(self.rows)
        clusters = 0
        for part in range(PARTS):
            path = self.folder / f"{part}"
            if path.exists():
                assert self.dim is not None
                records = np.fromfile(path, _record(self.dim))
                path.unlink()
                for members in _by_cluster(records):
                    clusters += 1
                    place = records["place"][members]
                    stay[place] = place[
                        nearest_before(records["vector"][members], self.rule.settings.epsilon)
                    ]
        files = self.files
        ref, rows = write_uid_file(files.workspace, files.path(STEM), SCHEMA, losers_of(stay, self.uids))
        facts = {
            "file": ref.path.rsplit("/", 1)[-1],
            "rows_with_vector": self.rows,
            "clusters": clusters,
            "rows_dropped": rows,
        }
        return facts, [ref]


def _record(dim: int) -> np.dtype[np.void]:
    return np.dtype([("place", "i8"), ("cluster", "f8"), ("rank", "f8"), ("vector", "f2", (dim,))])


def _by_cluster(records: npt.NDArray[np.void]) -> Iterator[npt.NDArray[np.int64]]:
    """The members of each cluster, the best first, of equals the first in the pool."""
    order = np.lexsort((records["place"], -records["rank"], records["cluster"]))
    clusters = records["cluster"][order]
    edges = np.flatnonzero(clusters[1:] != clusters[:-1]) + 1
    yield from np.split(order, edges)


def nearest_before(vectors: npt.NDArray[np.float16], epsilon: float) -> npt.NDArray[np.int64]:
    """For each row the place of the most similar one before it, when it goes for that; otherwise its own.

    Args:
        vectors: shape (n, dim), of one cluster, the best first.

    Returns:
        int64, shape (n,). Memory: the vectors as float32, and 4 kB a row.
    """
    units = vectors.astype(np.float32)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    found = np.arange(len(units))
    for start in range(0, len(units), _BLOCK):
        block = units[start : start + _BLOCK]
        cosines = block @ units[: start + len(block)].T
        rows = np.arange(len(block))
        # Only rows before a row count.
        cosines[np.arange(cosines.shape[1])[None, :] >= (start + rows)[:, None]] = -2.0
        best = cosines.argmax(axis=1)
        gone = cosines[rows, best] > 1.0 - epsilon
        found[start + rows[gone]] = best[gone]
    return found


def read_vectors(
    workspace: Workspace, path: str, rows: int, wanted: npt.NDArray[np.int64]
) -> npt.NDArray[np.float16]:
    """Some rows of a file of stored vectors, float16, shape (len(wanted), dim).

    Raises:
        DataError: not such a file, or not of so many rows.
    """
    with workspace.local(path) as local:
        try:
            array = np.load(local, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{workspace.url}/{path}: not a whole npy file ({error})") from None
        if array.ndim != 2 or array.shape[0] != rows or array.dtype != np.float16:
            raise DataError(
                f"{workspace.url}/{path}: expected {rows} float16 vectors, got {array.dtype} {array.shape}; "
                "run embed again"
            )
        return np.asarray(array[wanted])
