"""The stage ``embed/<alias>``: images and captions of a shard → CLIP vectors and their similarity."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa

from curate.clip.model import Clip, load
from curate.clip.sources import check, checkpoint_digest, resolve
from curate.config.models import ModelSettings
from curate.dataset import layout
from curate.dataset.family import base_files
from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace
from curate.embed.decoders import decoders
from curate.embed.encoding import Embedded, embed
from curate.embed.writing import write_embeddings
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import DataError, UserError
from curate.samples.columns import PlannedColumns, columns_of, read_samples


class EmbedStage(Stage):
    """One unit per shard. Models whose turn is still to come embed a shard in the same pass.

    The digest of the checkpoint is part of every unit, so that other weights under the same name or
    path redo the work, and a worker that finds other weights than the driver refuses.
    """

    gpu = True

    def __init__(self, alias: str, settings: ModelSettings) -> None:
        self.alias = alias
        self.model = settings
        self.name = f"embed/{alias}"
        self.settings = settings.facts()

    def plan_columns(self, planned: PlannedColumns) -> None:
        """The similarity, where images and texts are embedded."""
        if {"image", "text"} <= set(self.model.modalities):
            planned.add_embeddings(self.alias)

    def preflight(self, workspace: Workspace, planned: PlannedColumns | None) -> Iterator[str]:
        """Whether the weights can be had, and a CUDA device where the settings insist on one."""
        check(self.model)
        if self.model.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                yield f"embed.models.{self.alias}.device: cuda, and this machine has no CUDA device; use auto"

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """The shards whose samples are known; with their tars where images are wanted."""
        tars = RecordStore(workspace).outputs("download") if "image" in self.model.modalities else {}
        payload: dict[str, Any] = {}
        for shard, table in base_files(workspace).items():
            payload = payload or {"checkpoint": checkpoint_digest(resolve(self.model))}
            tar = tars.get(layout.image_tar(shard))
            yield Unit(shard, (table,) if tar is None else (tar, table), payload)

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Embed one shard."""
        return self.run_together(workspace, [(self, unit)])[0]

    def run_together(self, workspace: Workspace, parts: Sequence[tuple[Stage, Unit]]) -> list[Outcome]:
        """Embed one shard with several models, which see every image decoded once."""
        stages = [cast(EmbedStage, stage) for stage, _ in parts]
        unit = parts[0][1]
        clips = [stage._load(its) for stage, (_, its) in zip(stages, parts, strict=True)]
        columns = columns_of(workspace, unit.name, (), ())
        samples = read_samples(workspace, unit.name, ["text", "url"], columns)
        uids = samples["uid"].to_pylist()
        rows = {uid: row for row, uid in enumerate(uids)}
        if len(rows) < len(uids) or uids != sorted(uids):
            path = columns["uid"].family.path(unit.name)
            raise DataError(f"{workspace.url}/{path}: uids are not sorted and unique")
        with contextlib.ExitStack() as stack:
            tar = None
            if any(len(its.inputs) > 1 for _, its in parts):
                tar = stack.enter_context(workspace.local(layout.image_tar(unit.name)))
            results = embed(
                [(clip, stage.model.modalities) for clip, stage in zip(clips, stages, strict=True)],
                rows,
                samples["text"].to_pylist(),
                tar,
                decoders(clips[0].device, self.model.decode_workers),
            )
        outcomes = []
        for stage, clip, result in zip(stages, clips, results, strict=True):
            stage._write_facts(workspace, clip)
            outcomes.append(_outcome(stage._write(workspace, unit.name, samples, result), result, clip))
        return outcomes

    def _load(self, unit: Unit) -> Clip:
        clip = load(self.model)
        if clip.checkpoint != unit.payload["checkpoint"]:
            raise UserError(
                f"embed.models.{self.alias}: the weights of '{self.model.model}' on this worker are not "
                "those that the driver sees; give all machines the same checkpoint"
            )
        return clip

    def _write(
        self, workspace: Workspace, shard: str, samples: pa.Table, result: Embedded
    ) -> tuple[FileRef, ...]:
        found = {"image": result.image, "text": result.text}
        vectors = {kind: vectors for kind, vectors in found.items() if vectors is not None}
        return write_embeddings(
            workspace, self.alias, shard, samples, vectors, result.similarity, result.reason
        )

    def _write_facts(self, workspace: Workspace, clip: Clip) -> None:
        """``model.json`` beside the vectors. It is no unit's output: all units agree on it.

        Records of vectors that another model made are dropped before the first unit runs, so what is
        there is either these facts or those of vectors that no longer count.
        """
        path = layout.embedding_model(self.alias)
        try:
            same = workspace.exists(path) and workspace.read_json(path) == clip.facts
        except DataError:
            same = False
        if not same:
            workspace.write_json(path, clip.facts)


def _outcome(outputs: tuple[FileRef, ...], result: Embedded, clip: Clip) -> Outcome:
    drops = Counter(reason for reason in result.reason.to_pylist() if reason is not None)
    total = len(result.reason)
    similarity = result.similarity.drop_null().to_numpy().astype(np.float64)
    stats: dict[str, Any] = {"device": clip.device.type, "precision": clip.precision}
    if result.full:
        stats["captions_that_fill_the_context"] = result.full
    if len(similarity):
        stats["similarity_mean"] = round(float(similarity.mean()), 6)
    return Outcome(outputs, total, total - sum(drops.values()), dict(drops), stats)
