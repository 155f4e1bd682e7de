"""Pools to index: of vectors that are given, without the stages that would make them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.clip.vectors import STORED, Vectors
from curate.dataset import layout
from curate.dataset.uid import halves, shard_of
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.embed.writing import write_embeddings
from curate.engine.stage import Outcome, Stage, Unit
from tests.unit.embed.clip_shards import run_stage


def by_shard(uids: Iterable[str], shards: int) -> dict[str, list[str]]:
    """Name of a shard → its uids, in order."""
    out: dict[str, list[str]] = {layout.shard_name(i, shards): [] for i in range(shards)}
    for uid in sorted(uids):
        out[layout.shard_name(shard_of(uid, shards), shards)].append(uid)
    return out


class FakeFilter(Stage):
    """Keeps given uids of a pool."""

    def __init__(self, experiment: str, pool: Iterable[str], keep: Iterable[str], shards: int) -> None:
        self.name = f"filter/{experiment}"
        self.experiment = experiment
        self.pool, self.keep = by_shard(pool, shards), set(keep)
        self.settings = {"keep": sorted(self.keep)}

    def units(self, workspace: Workspace) -> list[Unit]:
        return [Unit("all")]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        refs: list[FileRef] = []
        counts, everything = [], list[str]()
        for shard, uids in self.pool.items():
            kept = [uid for uid in uids if uid in self.keep]
            everything += kept
            counts.append({"shard": shard, "samples": len(uids), "kept": len(kept), "total": len(kept)})
        path = layout.selection_file(self.experiment, "counts.parquet")
        refs.append(workspace.write_table(path, pa.Table.from_pylist(counts)))
        path = layout.selection_file(self.experiment, "subset.npy")
        with workspace.writing(path) as temporary:
            with temporary.open("wb") as stream:
                np.save(stream, halves(pa.array(everything, pa.string())))
            refs.append(ref_of(temporary, path))
        rows = sum(map(len, self.pool.values()))
        return Outcome(tuple(refs), rows, len(everything), {"x": rows - len(everything)})


class FakeEmbed(Stage):
    """Commits vectors that came ready: uid → modality → float32 (dim,). Its URLs are hostile."""

    name = "embed/m"
    settings: Mapping[str, Any] = {}

    def __init__(self, vectors: Mapping[str, Mapping[str, Vectors]], shards: int, model: str) -> None:
        self.vectors, self.pool, self.model = vectors, by_shard(vectors, shards), model

    def units(self, workspace: Workspace) -> list[Unit]:
        return [Unit(shard) for shard in self.pool]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        uids = self.pool[unit.name]
        urls = [f"http://h/{u}\x1b]0;title\x07\u202ex\x9b" for u in uids]
        rows = pa.table({"uid": uids, "text": [f"text of {u}" for u in uids], "url": urls})
        found = {m: np.stack([self.vectors[u][m] for u in uids]) for m in self.modalities}
        none = pa.nulls(len(uids), pa.string())
        similarity = pa.nulls(len(uids), pa.float32())
        refs = write_embeddings(workspace, "m", unit.name, rows, found, similarity, none)
        return Outcome(refs, len(uids), len(uids))

    @property
    def modalities(self) -> list[str]:
        return list(next(iter(self.vectors.values())))

    def finish(self, workspace: Workspace) -> None:
        (dim,) = next(iter(next(iter(self.vectors.values())).values())).shape
        facts = {
            "model": self.model,
            "pretrained": None,
            "precision": "float16, float32",
            "dim": dim,
            "weights": STORED,
            "checkpoint": STORED,
            "modalities": self.modalities,
        }
        workspace.write_json(layout.embedding_model("m"), facts)


def pool_of(folder: Path, vectors: Mapping[str, Vectors], model: str = "no-such-model") -> Workspace:
    """A workspace with vectors, modality → float32 (n, dim), all of whose rows are selected as ``e``."""
    rows = len(next(iter(vectors.values())))
    uids = sorted(hashlib.md5(str(i).encode()).hexdigest() for i in range(rows))
    space = Workspace(str(folder))
    shards = 3
    space.write_json(layout.DATASET, {"shards": shards, "shard_size": rows, "candidates": rows})
    given = {uid: {m: found[i] for m, found in vectors.items()} for i, uid in enumerate(uids)}
    run_stage(space, FakeEmbed(given, shards, model))
    run_stage(space, FakeFilter("e", uids, uids, shards))
    return space


@dataclass(frozen=True)
class Cloud:
    """Unit vectors of images and of texts in one space, with the gap that CLIP has between the two."""

    images: Vectors
    texts: Vectors


def cloud(texts: Vectors, direction: Vectors, count: int, seed: int = 0) -> Cloud:
    """Images around texts that lie elsewhere.

    What an image shows, which is what texts ask for, is the smaller part of what tells images apart; the
    larger one is how it looks, in which images form tight groups. So the images nearest to an image are of
    its group, in few lists of an index, and those nearest to a text are spread over all groups.

    Args:
        texts: of any length, (t, dim).
        direction: from the origin to the images, (dim,).
        count: of images.
    """
    rng = np.random.default_rng(seed)
    dim, looks = texts.shape[1], 24
    texts = unit(texts)
    shown = texts - texts.mean(0)
    basis = np.linalg.qr(rng.standard_normal((dim, looks)))[0].T
    groups = unit(rng.standard_normal((count // 10, looks)))
    images = 0.75 * direction / np.linalg.norm(direction) + 0.3 * shown[rng.integers(0, len(texts), count)]
    look = 0.6 * groups[rng.integers(0, len(groups), count)]
    look += 0.25 * rng.standard_normal((count, looks)) / np.sqrt(looks)
    images += look @ basis + 0.1 * rng.standard_normal((count, dim)) / np.sqrt(dim)
    return Cloud(unit(images), texts)


def unit(vectors: Any) -> Vectors:
    """At length 1, float32."""
    found: Vectors = np.asarray(vectors, np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def exact_recall(found: Any, queries: Vectors, base: Vectors, own: Any = None, k: int = 10) -> float:
    """Recall by brute force: the plain way of ``curate.index.recall.Exact``."""
    hits = 0
    for i, (query, rows) in enumerate(zip(queries, found, strict=True)):
        scores = base @ query
        if own is not None:
            scores[own[i]] = -np.inf
        best = set(np.argsort(-scores, kind="stable")[:k].tolist())
        given = [r for r in rows.tolist() if own is None or r != own[i]][:k]
        hits += len(best & set(given))
    return hits / (k * len(queries))
