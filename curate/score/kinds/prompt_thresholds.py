"""``type: prompt_thresholds``: prompts with a threshold each, as LAION's ``safety_settings.yml``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from curate.config.scorers.prompt_thresholds import PromptThresholdsScorer
from curate.dataset import external
from curate.errors import UserError
from curate.score.contract import Columns, ColumnScorer, Shard, blocks, copy_rows, finite_rows
from curate.score.heads.head import TILE

SPECIAL = "special"
"""The group whose concepts make the rule stricter and are no reason by themselves."""


@dataclass(frozen=True)
class Thresholds:
    """Concept → cosine from which on it counts as found."""

    concepts: Mapping[str, float]
    special: Mapping[str, float]


class PromptThresholds(ColumnScorer[PromptThresholdsScorer]):
    """Largest margin, its concept, number of concepts found, and whether a special one was."""

    def __init__(self, name: str, settings: PromptThresholdsScorer) -> None:
        super().__init__(name, settings)
        self.vectors = ((settings.model, "image"),)
        place = f"{self.place}.file"
        self.list = parse_thresholds(external.read(settings.file, place), f"{place}: {settings.file}")
        outputs = {"score": pa.float32(), "top": pa.string(), "hits": pa.int32()}
        self.outputs = pa.schema(outputs | {"special": pa.bool_()} if self.list.special else outputs)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the concepts themselves in place of the file's path."""
        lists = (self.list.concepts, self.list.special)
        concepts, special = ([[text, limit] for text, limit in each.items()] for each in lists)
        return {**self.settings.facts(), "file": None, "concepts": concepts, "special": special}

    def score(self, shard: Shard) -> Columns:
        """In tiles of rows; null where there is no embedding."""
        (vectors,) = shard.vectors.values()
        names = (*self.list.special, *self.list.concepts)
        encoded, _ = shard.encode(self.settings.model, names)
        judged = judge_prompts(vectors, encoded, self.list, self.settings)
        missing = np.isnan(judged.score)
        columns: dict[str, pa.Array] = {
            "score": pa.array(judged.score, mask=missing),
            "top": pa.array([*self.list.concepts], pa.string()).take(pa.array(judged.top, mask=missing)),
            "hits": pa.array(judged.hits, mask=missing),
        }
        if self.list.special:
            columns["special"] = pa.array(judged.special, mask=missing)
        return columns


@dataclass(frozen=True)
class Judged:
    """Scores of n images; rows without an embedding have NaN and zeros.

    Attributes:
        score: largest cosine less threshold, with the adjustments, float32 (n,).
        top: index of that concept, int32 (n,); the first of equals.
        hits: how many concepts were found, int32 (n,).
        special: whether a special concept was found, bool (n,).
    """

    score: npt.NDArray[np.float32]
    top: npt.NDArray[np.int32]
    hits: npt.NDArray[np.int32]
    special: npt.NDArray[np.bool_]


def judge_prompts(
    vectors: npt.NDArray[np.floating],
    encoded: npt.NDArray[np.floating],
    listed: Thresholds,
    settings: PromptThresholdsScorer,
) -> Judged:
    """Compare vectors (n, dim) with unit vectors of the special concepts, then of the concepts.

    The rule of Stable Diffusion's safety checker, without its rounding to three decimals: found is a
    cosine above its threshold; a special concept found makes the concepts' thresholds stricter.
    """
    n = len(vectors)
    out = Judged(
        np.full(n, np.nan, np.float32), np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.bool_)
    )
    prompts = encoded.astype(np.float64).T
    thresholds = np.array([*listed.special.values(), *listed.concepts.values()])
    count = len(listed.special)
    tile = np.zeros((TILE, prompts.shape[0]))
    for part in blocks(n, TILE):
        block = copy_rows(vectors, part).astype(np.float32).astype(np.float64)
        known = finite_rows(block) & (np.abs(block).sum(axis=1) > 0)
        tile[:] = 0.0
        tile[: len(block)][known] = block[known] / np.linalg.norm(block[known], axis=1, keepdims=True)
        margins = (tile @ prompts - thresholds + settings.adjustment)[: len(block)]
        special = (margins[:, :count] > 0).any(axis=1)
        ordinary = margins[:, count:] + np.where(special, settings.special_adjustment, 0.0)[:, None]
        out.score[part] = np.where(known, ordinary.max(axis=1), np.nan)
        out.top[part] = ordinary.argmax(axis=1)
        out.hits[part] = (ordinary > 0).sum(axis=1)
        out.special[part] = special
    return out


def parse_thresholds(data: bytes, source: str) -> Thresholds:
    """Groups of ``concepts: {text: threshold}``; all but ``special`` are looked for.

    Raises:
        UserError: not such a file.
    """
    try:
        groups = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(groups, dict) or not groups:
        raise UserError(f"{source}: expected groups, each with `concepts:` and a threshold for every concept")
    found: dict[str, dict[str, float]] = {"concepts": {}, SPECIAL: {}}
    for group, entry in groups.items():
        concepts = entry.get("concepts") if isinstance(entry, dict) else None
        if not isinstance(concepts, dict) or set(entry) - {"concepts", "action", "description"}:
            raise UserError(
                f"{source}: group '{group}' needs `concepts: {{text: threshold}}` and nothing else"
            )
        into = found[SPECIAL if group == SPECIAL else "concepts"]
        for text, threshold in concepts.items():
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{source}: {group}.concepts: write the concept '{text}' in quotes")
            if (
                isinstance(threshold, bool)
                or not isinstance(threshold, (int, float))
                or not math.isfinite(threshold)
            ):
                raise UserError(f"{source}: {group}.concepts.{text}: '{threshold}' is not a threshold")
            if text in found["concepts"] or text in found[SPECIAL]:
                raise UserError(f"{source}: the concept '{text}' is there twice")
            into[text] = float(threshold)
    if not found["concepts"]:
        raise UserError(f"{source}: only special concepts; a group of others is missing")
    return Thresholds(found["concepts"], found[SPECIAL])
