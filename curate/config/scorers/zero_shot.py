"""Settings of the scorer ``zero_shot``: zero-shot prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.config.base import knob
from curate.config.scorers.base import ModelAlias, ScorerSettings


class ZeroShotScorer(ScorerSettings):
    """Zero-shot prompts with any CLIP, as LAION-400M tagged NSFW.

    The image embedding is compared with the text embedding of every prompt; softmax over all
    prompts at the model's logit scale. `_score` is the summed probability of the positive list,
    `_top` the best prompt, `_tag` one of positive, unsure, negative by how many of the two best
    prompts are positive (2, 1, 0): LAION's rule with lists instead of indices.
    """

    implementation = "curate.score.kinds.zero_shot:ZeroShot"

    type: Literal["zero_shot"]
    model: ModelAlias
    positive: tuple[str, ...] = Field((), description="Prompts of what is looked for.")
    negative: tuple[str, ...] = Field((), description="Prompts of everything else.")
    prompts: str | None = Field(
        None, description="A shipped list (`nsfw_laion400m`, `watermark`, `demo_…`) or a YAML file."
    )
    logit_scale: float | None = Field(None, gt=0, description="Default: the model's own (LAION-400M: 100).")
    batch_rows: int = knob(16_384, "Rows scored at once.", ge=1)

    @model_validator(mode="after")
    def _has_prompts(self) -> ZeroShotScorer:
        if self.prompts is None and not (self.positive and self.negative):
            raise ValueError("needs `positive` and `negative` prompts, or `prompts: <list or file>`")
        if self.prompts is not None and (self.positive or self.negative):
            raise ValueError("give either `prompts` or `positive`/`negative`, not both")
        return self
