"""What the settings of every kind of scorer have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from curate.config.base import knob
from curate.config.kinds import KindOf, KindSettings, OpenSet

ModelAlias = Annotated[str, Field(description="Alias of a model of `embed.models`.")]
Modality = Literal["image", "text"]
Device = Literal["auto", "cpu", "cuda"]
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=64)]
"""A name that becomes part of a column's."""
ArrayKey = Annotated[str | None, Field(description="Name of the array in an `.npz` file that holds several.")]


class ScorerSettings(KindSettings):
    """Settings of one kind of scorer, whose ``type`` is a literal: the name of the kind.

    ``implementation`` names a ``curate.score.contract.Scorer``, which is made from the scorer's name and
    these settings.

    Attributes:
        row_local: the columns follow, row by row, from other columns: they are also computed where published
            tables are filtered as they are. The implementation is a ``RowScorer``.
    """

    row_local: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "type" in cls.model_fields:
            (cls.kind,) = get_args(cls.model_fields["type"].annotation)

    def models(self) -> tuple[str, ...]:
        """Aliases of the models whose embeddings it reads."""
        alias = getattr(self, "model", None)
        return (alias,) if alias else ()

    def uses(self) -> tuple[str, ...]:
        """Columns it reads that a user named: of samples, models or other scorers."""
        return ()


class ClassifierSettings(ScorerSettings):
    """What classifiers of texts and of images share."""

    activation: Literal["auto", "sigmoid", "softmax"] = Field(
        "auto",
        description="`softmax`: the labels exclude each other; `sigmoid`: they do not. "
        "`auto`: what the preset or the model's configuration says, else softmax.",
    )
    labels: tuple[Label, ...] = Field(
        (),
        description="Names of the first outputs, in the model's order. Default: the preset's or the model's.",
    )
    keep: tuple[Label, ...] = Field((), description="Labels to store. Default: all that have a name.")
    device: Device = knob("auto", "`auto`: CUDA when present.")
    batch_size: int = knob(64, "Samples per forward pass.", ge=1)

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> ClassifierSettings:
        for key in ("labels", "keep"):
            names = getattr(self, key)
            if len(set(names)) != len(names):
                raise ValueError(f"{key}: a label is there twice")
        if self.labels and not set(self.keep) <= set(self.labels):
            unknown = sorted(set(self.keep) - set(self.labels))
            raise ValueError(f"keep: not among the labels: {', '.join(unknown)}")
        return self


SCORERS = OpenSet(
    "scorer",
    ScorerSettings,
    "curate.config.scorers",
    "curate.scorers",
    tag="type",
    first=("text", "image", "zero_shot"),
)

Scorer = Annotated[ScorerSettings, KindOf(SCORERS)]
"""A field that is a scorer of any kind."""
