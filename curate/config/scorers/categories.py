"""Settings of the scorer ``categories``: categories by prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.config.base import knob
from curate.config.scorers.base import Label, ModelAlias, ScorerSettings


class CategoriesScorer(ScorerSettings):
    """What kind of picture it is, by prompts over stored CLIP vectors: `_best`, `_probability`, `_margin`.

    The prompts of a category are averaged, softmax over the categories at the model's logit scale.
    """

    implementation = "curate.score.kinds.categories:Categories"

    type: Literal["categories"]
    model: ModelAlias
    categories: dict[Label, tuple[str, ...]] = Field(
        {}, description="Category → prompts. Default: those of `prompts`."
    )
    prompts: str | None = Field(
        None, description="A shipped list (`data_types`, the default) or a YAML file with `categories:`."
    )
    probabilities: bool = Field(False, description="Also a column `_p_<category>` for every category.")
    logit_scale: float | None = Field(None, gt=0, description="Default: the model's own.")
    batch_rows: int = knob(16_384, "Rows scored at once.", ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> CategoriesScorer:
        if self.categories and self.prompts is not None:
            raise ValueError("give either `prompts` or `categories`, not both")
        return self
