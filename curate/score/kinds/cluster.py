"""``type: cluster``: clusters of the pool's embeddings.

What several published filters stand on: DataComp's image-based filter (arXiv 2304.14108, appendix on
the filtering baselines: k = 100,000 on ViT-L/14 image embeddings, 20 rounds; keep a row when its cluster
holds an ImageNet image), SemDeDup (arXiv 2303.09540: spherical, k = 50,000, 100 rounds, seed 1234) and
density-based pruning (arXiv 2401.04578: k = 500, and 100 for DataComp's medium pool).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from curate.clip.vectors import Vectors
from curate.config.scorers.cluster import ClusterScorer
from curate.errors import UserError
from curate.score.contract import Columns, ColumnScorer, OpenShard, Shard, cosine
from curate.score.devices import device_of, one_thread
from curate.score.vectors.compute import floats
from curate.score.vectors.files import Arrays, VectorSet, find_vectors, unit_chunks
from curate.score.vectors.kmeans import assign, kmeans
from curate.score.vectors.sample import draw


class Cluster(ColumnScorer[ClusterScorer]):
    """Number of the nearest centroid, the cosine with it, and whether the cluster holds a target."""

    learns = True
    gpu = True

    def __init__(self, name: str, settings: ClusterScorer) -> None:
        super().__init__(name, settings)
        self.vectors = ((settings.model, settings.modality),)
        self.centroids = self._set("centroids", settings.centroids)
        self.targets = self._set("targets", settings.targets)
        outputs = [pa.field("id", pa.int32()), cosine("similarity")]
        self.outputs = pa.schema([*outputs, pa.field("target", pa.bool_())] if self.targets else outputs)

    def _set(self, key: str, url: str | None) -> VectorSet | None:
        settings = self.settings
        return find_vectors(url, settings.key, f"{self.place}.{key}", settings.modality) if url else None

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with digests in place of paths."""
        given = {
            "centroids": self.centroids and self.centroids.digest,
            "targets": self.targets and self.targets.digest,
        }
        return {**self.settings.facts(), **given}

    def learn(self, shards: Sequence[str], open_shard: OpenShard) -> Mapping[str, npt.NDArray[Any]]:
        """``centroids`` float32 (k, dim), trained or from the file; ``sizes``, how many training points
        each had; ``target`` bool (k,), whether a cluster holds a target."""
        with open_shard(shards[0]) as shard:
            ((alias, _), stored) = next(iter(shard.vectors.items()))
            dim, facts = stored.shape[1], shard.facts[alias]
        for given in (self.centroids, self.targets):
            if given is not None:
                given.check_model(alias, facts)
        device = device_of(self.settings.device, self.place)
        with one_thread():
            learned = self._trained(shards, open_shard, device) if self.centroids is None else self._read(dim)
            if self.targets is not None:
                with self.targets.open(dim) as arrays:
                    held = self._clusters_of(arrays, learned["centroids"], device)
                learned["target"] = held
        return learned

    def score(self, shard: Shard) -> Columns:
        """By the centroids that were learned."""
        (stored,) = shard.vectors.values()
        device = device_of(self.settings.device, self.place)
        with one_thread():
            numbers, cosines = self._assign(stored, shard.learned["centroids"], device)
        missing = numbers < 0
        columns: dict[str, pa.Array] = {
            "id": pa.array(numbers.astype(np.int32), pa.int32(), mask=missing),
            "similarity": floats(cosines, missing),
        }
        if "target" in shard.learned:
            held = shard.learned["target"][np.where(missing, 0, numbers)]
            columns["target"] = pa.array(held, pa.bool_(), mask=missing)
        return columns

    def _trained(
        self, shards: Sequence[str], open_shard: OpenShard, device: torch.device
    ) -> dict[str, npt.NDArray[Any]]:
        asked = self.settings
        (points,) = draw(shards, open_shard, self.vectors, asked.sample, asked.seed).vectors
        clusters = asked.clusters or 0
        if len(points) < clusters:
            raise UserError(
                f"{self.place}.clusters: {clusters} clusters, but the pool has only {len(points)} embeddings "
                f"of '{asked.model}'; ask for fewer"
            )
        centroids, sizes = kmeans(points, clusters, asked.iterations, asked.spherical, device)
        return {"centroids": centroids, "sizes": sizes}

    def _read(self, dim: int) -> dict[str, npt.NDArray[Any]]:
        assert self.centroids is not None
        with self.centroids.open(dim) as arrays:
            unit = self.settings.spherical and not self.settings.inner_product
            chunks = list(unit_chunks(arrays, torch.device("cpu"), unit=unit))
        if any(chunk.usable is not None for chunk in chunks) or not chunks:
            raise UserError(
                f"{self.centroids.place}: {self.centroids.files[0].url}: a centroid is zero or no number"
            )
        return {"centroids": np.concatenate([chunk.vectors.numpy() for chunk in chunks])}

    def _assign(
        self, stored: npt.NDArray[np.floating], centroids: Vectors, device: torch.device
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        return assign(stored, centroids, self.settings.spherical, device, self.settings.inner_product)

    def _clusters_of(
        self, targets: Arrays, centroids: Vectors, device: torch.device
    ) -> npt.NDArray[np.bool_]:
        """Which clusters (k,) hold a target."""
        held = np.zeros(len(centroids), bool)
        for chunk in unit_chunks(targets, device):
            usable = slice(None) if chunk.usable is None else chunk.usable
            numbers, _ = self._assign(chunk.vectors[usable].cpu().numpy(), centroids, device)
            held[numbers] = True
        return held
