"""Settings of scorers that read stored embeddings, or other columns, and nothing else."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from curate.config.base import knob
from curate.config.scorers.base import AnyScorer

Device = Literal["auto", "cpu", "cuda"]
_KEY = "Name of the array in an `.npz` file that holds several."


class NegClipScorer(AnyScorer):
    """negCLIPLoss: CLIP similarity minus how well image and text fit anything else.

    `_score` is the similarity less the mean of `_image_norm` and `_text_norm`, which are
    temperature * log-sum-exp of the image against the texts, and of the text against the images, of
    random batches.
    """

    type: Literal["negclip"]
    model: str = Field(description="Alias of a model of `embed.models`.")
    batch_size: int = Field(32_768, ge=2, description="Samples in a batch of the normaliser.")
    draws: int = Field(10, ge=1, le=64, description="Batches that the normaliser is averaged over.")
    sample: int | None = Field(
        None, ge=2, description="Samples of the pool that batches are drawn from. Default: 2 * batch_size."
    )
    temperature: float | None = Field(
        None, ge=0.003, description="Default: 1 / the model's logit scale (OpenAI's models: 0.01)."
    )
    seed: int = Field(0, ge=0, description="Of the sample and of the batches.")
    device: Device = knob("auto", "`auto`: CUDA when present.")

    @model_validator(mode="after")
    def _sample_holds_a_batch(self) -> NegClipScorer:
        if self.sample is not None and self.sample < self.batch_size:
            raise ValueError("`sample` must not be smaller than `batch_size`")
        return self


class NormSimScorer(AnyScorer):
    """NormSim: the norm of a sample's similarities with the embeddings of a target set, `_score`."""

    type: Literal["normsim"]
    model: str = Field(description="Alias of a model of `embed.models`.")
    targets: str = Field(description="Embeddings: `.npy`, `.npz`, a folder of them, or an embeddings folder.")
    key: str | None = Field(None, description=_KEY)
    norm: Literal["inf", 2] = Field("inf", description="`inf` (the largest similarity) or 2.")
    modality: Literal["image", "text"] = Field("image", description="Which embedding of the sample.")
    device: Device = knob("auto", "`auto`: CUDA when present.")

    @field_validator("norm", mode="before")
    @classmethod
    def _written_as_yaml_does(cls, value: object) -> object:
        return "inf" if value == float("inf") else value


class MixScorer(AnyScorer):
    """A weighted sum of other columns, each with mean 0 and standard deviation 1 over the pool: `_score`."""

    type: Literal["mix"]
    weights: dict[str, float] = Field(min_length=1, description="Column → weight.")
    standardise: bool = Field(True, description="Off: columns are summed as they are stored.")

    def uses(self) -> tuple[str, ...]:
        """The columns that have a weight."""
        return tuple(self.weights)

    @field_validator("weights")
    @classmethod
    def _finite(cls, value: dict[str, float]) -> dict[str, float]:
        for name, weight in value.items():
            if not abs(weight) < float("inf"):
                raise ValueError(f"the weight of '{name}' is {weight}; give a number")
        return value


class ClusterScorer(AnyScorer):
    """k-means clusters: `_id`, `_similarity` to the centroid, and `_target` when there are targets."""

    type: Literal["cluster"]
    model: str = Field(description="Alias of a model of `embed.models`.")
    modality: Literal["image", "text"] = Field("image", description="Which embedding of the sample.")
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
    key: str | None = Field(None, description=_KEY)
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


class ConceptsScorer(AnyScorer):
    """CiT's concept match: `_score` is the similarity with the nearest concept, `_concept` its name."""

    type: Literal["concepts"]
    model: str = Field(description="Alias of a model of `embed.models`.")
    modality: Literal["image", "text"] = Field("text", description="Which embedding of the sample.")
    concepts: tuple[str, ...] = Field((), description="Concepts, encoded by the model's text tower.")
    file: str | None = Field(None, description="Instead: a text file with a concept a line.")
    vectors: str | None = Field(
        None, description="Instead: stored vectors of the concepts. `file` may name their rows."
    )
    key: str | None = Field(None, description=_KEY)
    template: str = Field("{}", description="Put around each concept before it is encoded; CiT: none.")
    device: Device = knob("auto", "`auto`: CUDA when present.")

    @model_validator(mode="after")
    def _one_source(self) -> ConceptsScorer:
        if self.concepts and (self.file or self.vectors):
            raise ValueError("give `concepts`, or files (`file`, `vectors`), not both")
        if not (self.concepts or self.file or self.vectors):
            raise ValueError("needs `concepts`, or a `file` of them, or their `vectors`")
        if any(not concept.strip() for concept in self.concepts):
            raise ValueError("a concept is empty")
        if "{}" not in self.template:
            raise ValueError("`template` needs a {} where the concept goes")
        return self


class HeldOutScorer(AnyScorer):
    """Nearest of an evaluation set's embeddings: `_similarity`, and its `_file` and `_row`."""

    type: Literal["held_out"]
    model: str = Field(description="Alias of a model of `embed.models`.")
    vectors: str = Field(description="Embeddings: `.npy`, `.npz`, a folder of them, or an embeddings folder.")
    key: str | None = Field(None, description=_KEY)
    modality: Literal["image", "text"] = Field("image", description="Which embedding of the sample.")
    device: Device = knob("auto", "`auto`: CUDA when present.")
