"""The stage ``index/<experiment>_<alias>``: a selection's embeddings → faiss indices and their row map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from curate.clip.vectors import read_model
from curate.config.models import IndexSettings
from curate.dataset import layout
from curate.dataset.records import RecordStore, inputs_digest
from curate.dataset.selections import Selection, selection_refs
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.errors import UserError
from curate.index.build import RECALL_AT, Built, build, new_index, save
from curate.index.recall import Exact
from curate.index.rows import Plan, blocks, empty_uids, gather, plan_rows, sample_rows
from curate.index.types import index_type
from curate.run.stage import Outcome, Stage, Unit

QUERIES = 512
"""Texts that recall is measured with, held out from training."""
UNIT = "index"


class IndexStage(Stage):
    """One unit: the indices of one experiment and model, for each modality, with one map of rows.

    Built in the driver's process by faiss's own threads. Memory is that of the largest index, see
    ``curate.index.types``, and of the training sample.
    """

    inline = True

    def __init__(self, experiment: str, alias: str, settings: IndexSettings) -> None:
        self.experiment = experiment
        self.alias = alias
        self.index = settings
        self.name = f"index/{experiment}_{alias}"
        facts = settings.facts()
        self.settings = {k: facts[k] for k in ("modalities", "type", "train_points", "seed")}

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """One unit once there is a selection."""
        store = RecordStore(workspace)
        selection = selection_refs(workspace, self.experiment)
        if not selection:
            return
        selected = Selection(workspace, self.experiment).kept
        embedded = store.outputs(f"embed/{self.alias}")
        if not embedded:
            raise UserError(
                f"index: nothing is embedded as '{self.alias}' in {workspace.url}; run `curate embed` first"
            )
        wanted = tuple(
            ref
            for path, ref in sorted(embedded.items())
            if _shard(path) in selected and self._reads(path.split("/")[2])
        )
        yield Unit(UNIT, (*selection, *wanted), {"selection": inputs_digest(selection)})

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Build the indices."""
        model = read_model(workspace, self.alias)
        embedded = {_shard(ref.path) for ref in unit.inputs if ref.path.startswith("embeddings/")}
        selection = Selection(workspace, self.experiment)
        shards = {shard: shard in embedded for shard in selection.kept}
        plan = plan_rows(workspace, selection, self.alias, shards, None)
        outputs = [self._write_uids(workspace, selection, shards, plan)]
        facts: dict[str, Any] = {}
        there = model.get("modalities", ["image", "text"])
        questions = "text" if "text" in there else "image"
        for modality in self._modalities(there):
            kind, built = self._build(workspace, selection, plan, modality, questions, int(model["dim"]))
            path = self._path(f"{modality}.index")
            with workspace.writing(path) as temporary:
                save(built.index, temporary)
                outputs.append(ref_of(temporary, path))
            facts[modality] = _facts(kind, built, outputs[-1].size, plan.rows)
        about = {
            "experiment": self.experiment,
            "model": self.alias,
            "weights": model["weights"],
            "checkpoint": model["checkpoint"],
            "metric": "inner_product",
            "dim": int(model["dim"]),
            "rows": plan.rows,
            "left_out": dict(sorted(plan.left_out.items())),
            "recall_asked_with": questions,
            "selection": unit.payload["selection"],
            "indices": facts,
        }
        outputs.append(workspace.write_json(self._path("index.json"), about))
        total = plan.rows + sum(plan.left_out.values())
        return Outcome(tuple(outputs), total, plan.rows, dict(plan.left_out), {"indices": facts})

    def _modalities(self, there: Sequence[str]) -> list[str]:
        """Those that are asked for, as far as the model has embedded them."""
        found: list[str] = [m for m in self.index.modalities if m in there]
        if not found:
            raise UserError(
                f"index.modalities: {' and '.join(self.index.modalities)} of '{self.alias}' is not embedded, "
                f"only {' and '.join(there)}; see embed.models.{self.alias}.modalities"
            )
        return found

    def _build(
        self,
        workspace: Workspace,
        selection: Selection,
        plan: Plan,
        modality: str,
        questions: str,
        dim: int,
    ) -> tuple[str, Built]:
        kind = self.index.type
        if kind == "auto":
            kind = index_type(plan.rows, dim, self.index.train_points)
        index = new_index(kind, dim)
        queries = min(QUERIES, (plan.rows + 9) // 10)
        asked, trained = sample_rows(plan, queries, self.index.train_points, self.index.seed)
        where = (workspace, selection, self.alias)
        asking = gather(*where, questions, plan, dim, asked)
        training = gather(*where, modality, plan, dim, trained if not index.is_trained else asked[:0])
        own = asked if modality == questions else np.full_like(asked, -1)
        built = build(index, kind, training, blocks(*where, modality, plan, dim), Exact(asking, own))
        return kind, built

    def _write_uids(
        self, workspace: Workspace, selection: Selection, shards: dict[str, bool], plan: Plan
    ) -> FileRef:
        path = self._path("uids.npy")
        with workspace.writing(path) as temporary:
            if plan.rows:
                uids = empty_uids(temporary, plan.rows)
                plan_rows(workspace, selection, self.alias, shards, uids)
                uids.flush()
            else:
                with temporary.open("wb") as stream:
                    np.save(stream, np.empty(0, "u8,u8"))
            return ref_of(temporary, path)

    def _path(self, name: str) -> str:
        return layout.index_file(self.experiment, self.alias, name)

    def _reads(self, family: str) -> bool:
        """Texts are read in any case where there are any: recall is measured with them."""
        return family in ("metadata", "text_emb") or "image" in self.index.modalities


def _shard(path: str) -> str:
    """``embeddings/b32/img_emb/img_emb_00042.npy`` → ``00042``."""
    return path.rpartition("/")[2].partition(".")[0].rpartition("_")[2]


def _facts(kind: str, built: Built, size: int, rows: int) -> dict[str, Any]:
    return {
        "type": kind,
        "nprobe": built.nprobe,
        f"recall_at_{RECALL_AT}": round(built.recall, 4),
        "bytes": size,
        "bytes_per_vector": round(size / rows, 1) if rows else None,
    }
