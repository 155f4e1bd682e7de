"""Settings of the scorer ``concepts``: concept match."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.config.base import knob
from curate.config.scorers.base import ArrayKey, Device, Modality, ModelAlias, ScorerSettings


class ConceptsScorer(ScorerSettings):
    """CiT's concept match: `_score` is the similarity with the nearest concept, `_concept` its name."""

    implementation = "curate.score.kinds.concepts:Concepts"

    type: Literal["concepts"]
    model: ModelAlias
    modality: Modality = Field("text", description="Which embedding of the sample.")
    concepts: tuple[str, ...] = Field((), description="Concepts, encoded by the model's text tower.")
    file: str | None = Field(None, description="Instead: a text file with a concept a line.")
    vectors: str | None = Field(
        None, description="Instead: stored vectors of the concepts. `file` may name their rows."
    )
    key: ArrayKey = None
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
