"""Settings of the scorer ``cluster``: k-means clusters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.config.base import knob
from curate.config.scorers.base import ArrayKey, Device, Modality, ModelAlias, ScorerSettings


class ClusterScorer(ScorerSettings):
    """k-means clusters: `_id`, `_similarity` to the centroid, and `_target` when there are targets."""

    implementation = "curate.score.kinds.cluster:Cluster"

    type: Literal["cluster"]
    model: ModelAlias
    modality: Modality = Field("image", description="Which embedding of the sample.")
    clusters: int | None = Field(None, ge=1, le=2**31 - 1, description="Number of clusters to train.")
    iterations: int = Field(20, ge=1, description="Rounds of k-means, fewer when nothing moves any more.")
    spherical: bool = Field(True, description="Centroids of unit length, compared by cosine.")
    inner_product: bool = Field(
        False,
        description="Of given centroids: compare with them as they are stored, of any length (DataComp).",
    )
    sample: int = Field(262_144, ge=1, description="Samples of the pool that train the centroids, at most.")
    seed: int = Field(1234, ge=0, description="Of the sample and of the first centroids.")
    centroids: str | None = Field(None, description="Instead of training: a `.npy` or `.npz` of centroids.")
    key: ArrayKey = None
    targets: str | None = Field(
        None, description="Embeddings of a target set: `_target` says whether the cluster holds any of them."
    )
    device: Device = knob("auto", "`auto`: CUDA when present.")

    @model_validator(mode="after")
    def _one_source(self) -> ClusterScorer:
        if (self.clusters is None) == (self.centroids is None):
            raise ValueError("give either `clusters` (how many to train) or `centroids` (a file)")
        if self.clusters is not None and self.sample < self.clusters:
            raise ValueError("`sample` must not be smaller than `clusters`")
        if self.inner_product and (self.centroids is None or not self.spherical):
            raise ValueError("`inner_product` goes with `centroids`, and without `spherical: false`")
        return self
