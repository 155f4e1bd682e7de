"""``type: categories``: which of several categories an image is most like, by prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from curate.config.base import Settings
from curate.config.scorers.base import Label
from curate.config.scorers.categories import CategoriesScorer
from curate.score.contract import Columns, ColumnScorer, Shard, copy_rows, finite_rows, score_blocks
from curate.score.prompts import check_list, load_list

Floats = npt.NDArray[np.floating[Any]]
FOLDER = "category_prompts"


class CategoryPrompts(Settings):
    """Categories and what they are described by."""

    description: str = Field("", description="What the categories are for, one sentence.")
    categories: dict[Label, tuple[str, ...]] = Field(min_length=2, description="Category → prompts.")

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        seen: dict[str, str] = {}
        for category, prompts in self.categories.items():
            if not prompts:
                raise ValueError(f"category '{category}' has no prompts")
            for prompt in prompts:
                if not prompt.strip():
                    raise ValueError(f"category '{category}' has an empty prompt")
                if prompt in seen:
                    raise ValueError(f"'{prompt}' is in '{seen[prompt]}' and in '{category}'")
                seen[prompt] = category
        return self


class Categories(ColumnScorer[CategoriesScorer]):
    """Best category, its probability, and how far ahead of the next it is."""

    def __init__(self, name: str, settings: CategoriesScorer) -> None:
        super().__init__(name, settings)
        self.vectors = ((settings.model, "image"),)
        self.prompts = category_prompts(name, settings)
        outputs = {"best": pa.string(), "probability": pa.float32(), "margin": pa.float32()}
        if settings.probabilities:
            outputs |= {f"p_{category}": pa.float32() for category in self.prompts}
        self.outputs = pa.schema(outputs)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the prompts themselves in place of where they come from."""
        # A list, since the first of equally probable categories wins.
        categories = [[category, *prompts] for category, prompts in self.prompts.items()]
        return {**self.settings.facts(), "prompts": None, "categories": categories}

    def score(self, shard: Shard) -> Columns:
        """In blocks of rows, so that memory is bounded."""
        (vectors,) = shard.vectors.values()
        texts = tuple(prompt for prompts in self.prompts.values() for prompt in prompts)
        encoded, scale = shard.encode(self.settings.model, texts)
        centres = category_centres(encoded, [len(prompts) for prompts in self.prompts.values()])
        scale = self.settings.logit_scale or scale
        names = pa.array(self.prompts, pa.string())

        def score_block(part: slice) -> Columns:
            found = categorize(copy_rows(vectors, part), centres, scale)
            missing = found.best < 0
            columns = {
                "best": names.take(pa.array(found.best, mask=missing)),
                "probability": pa.array(found.probability, mask=missing),
                "margin": pa.array(found.margin, mask=missing),
            }
            for i, category in enumerate(self.prompts if self.settings.probabilities else ()):
                columns[f"p_{category}"] = pa.array(np.ascontiguousarray(found.shares[:, i]), mask=missing)
            return columns

        return score_blocks(len(vectors), self.settings.batch_rows, score_block)


@dataclass(frozen=True)
class Categorized:
    """Scores of n images; rows without an embedding have -1 and NaN.

    Attributes:
        best: index of the most probable category, int32 (n,).
        probability: its probability, float32 (n,).
        margin: probability over that of the second, float32 (n,).
        shares: probabilities of all categories, float32 (n, categories).
    """

    best: npt.NDArray[np.int32]
    probability: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32]


def category_centres(prompts: Floats, sizes: list[int]) -> npt.NDArray[np.float64]:
    """Unit vectors of prompts (p, dim), so many per category → unit vectors of categories, float64.

    The mean of a category's prompts, scaled to unit length: CLIP's ensembling (Radford et al. 2021, 3.1.4).
    """
    bounds = np.cumsum(sizes)[:-1]
    means = np.stack([part.mean(axis=0) for part in np.split(prompts.astype(np.float64), bounds)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def categorize(vectors: Floats, centres: Floats, logit_scale: float) -> Categorized:
    """Unit vectors (n, dim) by the unit vectors of at least two categories (c, dim).

    Softmax at the logit scale, in float64, so that the results do not depend on how many rows come at
    once. Equal probabilities go to the category that is first.
    """
    known = finite_rows(vectors)
    best = np.full(len(vectors), -1, np.int32)
    shares = np.full((len(vectors), len(centres)), np.nan)
    logits = logit_scale * (vectors[known].astype(np.float64) @ centres.astype(np.float64).T)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    shares[known] = weights / weights.sum(axis=1, keepdims=True)
    best[known] = np.argmax(logits, axis=1) if len(logits) else 0
    top = np.sort(shares, axis=1)[:, ::-1]
    probability, margin = top[:, 0], top[:, 0] - top[:, 1]
    return Categorized(
        best, probability.astype(np.float32), margin.astype(np.float32), shares.astype(np.float32)
    )


def category_prompts(scorer: str, settings: CategoriesScorer) -> dict[str, tuple[str, ...]]:
    """Category → prompts, as a scorer's settings hold or name them.

    Raises:
        UserError: no such list or file, or one that cannot be used.
    """
    place = f"score.scorers.{scorer}"
    if settings.categories:
        return check_list(CategoryPrompts, {"categories": settings.categories}, place).categories
    data, source = load_list(settings.prompts or "data_types", f"{place}.prompts", FOLDER, "categories:")
    return check_list(CategoryPrompts, data, source).categories
