"""``type: zero_shot``: tags of image embeddings by prompts, by the rule of LAION-400M's NSFW tag.

Every prompt is compared on its own (no averaging), softmax over all of them at the logit scale; the
two best prompts decide the tag: both from the positive list, one, or none. LAION's own code counts
one positive prompt as negative, because a missing comma shifted its indices; lists cannot do that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.config.scorers.zero_shot import ZeroShotScorer
from curate.score.contract import Columns, ColumnScorer, Shard, copy_rows, score_blocks
from curate.score.prompts import load_prompts

Floats = npt.NDArray[np.floating]

TAGS = ("negative", "unsure", "positive")
"""By how many of the two best prompts are positive."""


class ZeroShot(ColumnScorer[ZeroShotScorer]):
    """Probability of the positive list, best prompt, tag."""

    outputs = pa.schema({"score": pa.float32(), "top": pa.string(), "tag": pa.string()})

    def __init__(self, name: str, settings: ZeroShotScorer) -> None:
        super().__init__(name, settings)
        self.vectors = ((settings.model, "image"),)
        self.prompts = load_prompts(name, settings)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the prompts themselves in place of where they come from."""
        lists = {"positive": list(self.prompts.positive), "negative": list(self.prompts.negative)}
        return {**self.settings.facts(), "prompts": None, **lists}

    def score(self, shard: Shard) -> Columns:
        """In blocks of rows, so that memory is bounded."""
        (vectors,) = shard.vectors.values()
        texts = (*self.prompts.positive, *self.prompts.negative)
        encoded, scale = shard.encode(self.settings.model, texts)
        positive, negative = np.split(encoded, [len(self.prompts.positive)])
        scale = self.settings.logit_scale or scale

        def score_block(part: slice) -> Columns:
            tagged = tag_images(copy_rows(vectors, part), positive, negative, scale)
            missing = tagged.top < 0
            return {
                "score": pa.array(tagged.score, mask=missing),
                "top": pa.array(texts, pa.string()).take(pa.array(tagged.top, mask=missing)),
                "tag": pa.array(TAGS, pa.string()).take(pa.array(tagged.tag, mask=missing)),
            }

        return score_blocks(len(vectors), self.settings.batch_rows, score_block)


@dataclass(frozen=True)
class Tagged:
    """Scores of n images; rows without an embedding have NaN, -1 and -1.

    Attributes:
        score: summed probability of the positive prompts, float32 (n,).
        top: index of the best prompt, positives first, int32 (n,).
        tag: index into ``TAGS``, int8 (n,).
    """

    score: npt.NDArray[np.float32]
    top: npt.NDArray[np.int32]
    tag: npt.NDArray[np.int8]


def tag_images(vectors: Floats, positive: Floats, negative: Floats, logit_scale: float) -> Tagged:
    """Tag unit vectors (n, dim) by the unit vectors of prompts (p, dim) and (m, dim), p + m >= 2.

    Computed in float64, so that the float32 results do not depend on how many rows come at once. Equal
    probabilities go to the prompt that is first in the list.
    """
    prompts = np.concatenate([positive, negative]).astype(np.float64)
    known = np.isfinite(vectors).all(axis=1)
    score = np.full(len(vectors), np.nan, np.float32)
    top = np.full(len(vectors), -1, np.int32)
    tag = np.full(len(vectors), -1, np.int8)
    if known.any():
        logits = logit_scale * (vectors[known].astype(np.float64) @ prompts.T)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        best = np.argsort(-logits, axis=1, kind="stable")[:, :2]
        score[known] = weights[:, : len(positive)].sum(axis=1) / weights.sum(axis=1)
        top[known] = best[:, 0]
        tag[known] = (best < len(positive)).sum(axis=1)
    return Tagged(score, top, tag)
