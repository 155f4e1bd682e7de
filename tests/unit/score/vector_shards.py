"""A workspace with stored embeddings that no model made."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.clip.vectors import write_vectors
from curate.config.loading import check
from curate.config.models import EmbedSettings
from curate.config.scorers.base import ScorerSettings
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.uid import shard_of, uid_of
from curate.dataset.workspace import Workspace
from curate.engine.stage import Outcome, Stage, Unit
from curate.score.stage import score_stages
from tests.unit.embed.clip_shards import FakeDownload, run_stage

DIM = 16
WEIGHTS = "a" * 32


class FakeEmbed(Stage):
    """Commits vectors that are given: shard → (uids, images, texts)."""

    settings: Mapping[str, Any] = {}

    def __init__(self, alias: str, shards: Mapping[str, tuple[list[str], np.ndarray, np.ndarray]]) -> None:
        self.alias, self.shards = alias, shards
        self.name = f"embed/{alias}"

    def units(self, workspace: Workspace) -> list[Unit]:
        return [Unit(name) for name in self.shards]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        uids, image, text = self.shards[unit.name]
        similarity = (image.astype(np.float64) * text.astype(np.float64)).sum(axis=1)
        missing = ~np.isfinite(similarity)
        table = pa.table(
            {
                "uid": pa.array(uids, pa.string()),
                "similarity": pa.array(similarity.astype(np.float32), pa.float32(), mask=missing),
            }
        )
        facts = {"dim": image.shape[1], "weights": WEIGHTS, "checkpoint": "c", "model": "made up"}
        workspace.write_json(layout.embedding_model(self.alias), {**facts, "logit_scale": 100.0})
        refs = (
            write_vectors(workspace, layout.embedding(self.alias, "image", unit.name), image),
            write_vectors(workspace, layout.embedding(self.alias, "text", unit.name), text),
            workspace.write_table(Family.embeddings(self.alias).path(unit.name), table),
        )
        return Outcome(refs, len(uids), len(uids))


def unit(rng: np.random.Generator, rows: int, dim: int = DIM) -> np.ndarray:
    """Unit vectors that lean to one side, as CLIP's do, float16."""
    vectors = rng.normal(size=(rows, dim)) + 0.6
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


class Pool:
    """n rows in uid order, as committed shards.

    Attributes:
        uids: sorted.
        image: float16 (n, DIM); some rows are NaN.
        text: likewise.
        workspace: holds them in shards.
    """

    def __init__(
        self,
        folder: Path,
        rows: int,
        shards: int,
        gaps: Sequence[int] = (3, 7),
        models: Sequence[str] = ("m",),
    ) -> None:
        rng = np.random.default_rng(rows)
        self.uids = sorted(uid_of(f"text {i}", f"http://h/{i}") for i in range(rows))
        self.image, self.text = unit(rng, rows), unit(rng, rows)
        for row in gaps:
            if row < rows:
                (self.image if row % 2 else self.text)[row] = np.nan
        self.workspace = Workspace(str(folder))
        self.shards = [layout.shard_name(i, shards) for i in range(shards)]
        rows_of: dict[str, list[int]] = {name: [] for name in self.shards}
        for i, uid in enumerate(self.uids):
            rows_of[self.shards[shard_of(uid, shards)]].append(i)
        tables = {name: (self._table(rows), b"") for name, rows in rows_of.items()}
        run_stage(self.workspace, FakeDownload(tables))
        vectors = {
            name: ([self.uids[i] for i in rows], self.image[rows], self.text[rows])
            for name, rows in rows_of.items()
        }
        for alias in models:
            run_stage(self.workspace, FakeEmbed(alias, vectors))

    def _table(self, rows: list[int]) -> pa.Table:
        uids = [self.uids[i] for i in rows]
        return pa.table(
            {
                "uid": pa.array(uids, pa.string()),
                "url": pa.array([f"http://h/{uid}" for uid in uids], pa.string()),
                "caption": pa.array([f"caption {uid}" for uid in uids], pa.string()),
                "status": pa.array(["success"] * len(rows), pa.string()),
                "original_width": pa.array(rows, pa.int32()),
            }
        )

    def score(self, **scorers: dict[str, Any]) -> None:
        """Run scorers as a config would."""
        self.run(settings(**scorers))

    def run(self, made: dict[str, ScorerSettings]) -> None:
        config = check({"embed": {"models": {"m": {"model": "demo"}}}, "score": {"scorers": {}}})
        for stage in score_stages(config.score.model_copy(update={"scorers": made}), config.embed):
            run_stage(self.workspace, pickle.loads(pickle.dumps(stage)))  # as a worker gets it

    def column(self, scorer: str, column: str) -> list[Any]:
        """A column of all samples in uid order."""
        return [
            value
            for shard in self.shards
            for value in self.workspace.read_table(Family.scores(scorer).path(shard))[
                f"{scorer}_{column}"
            ].to_pylist()
        ]

    def bytes_of(self, scorer: str) -> list[bytes]:
        """The scorer's files."""
        return [self.workspace.read_bytes(Family.scores(scorer).path(shard)) for shard in self.shards]


def settings(**scorers: dict[str, Any]) -> dict[str, ScorerSettings]:
    """Scorers' settings from what a config says."""
    models = {"m": {"model": "demo"}}
    return dict(check({"embed": {"models": models}, "score": {"scorers": scorers}}).score.scorers)


EMBED = EmbedSettings.model_validate({"models": {"m": {"model": "demo"}}})
