"""The stage ``index/<experiment>_<alias>``: a selection's embeddings → faiss indices and their row map."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from curate.clip.vectors import read_model
from curate.config.models import IndexSettings, ModelSettings
from curate.dataset import layout
from curate.dataset.records import RecordStore, inputs_digest
from curate.dataset.selections import Selection, selection_refs
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import UserError
from curate.index.about import FORMAT, caveat, index_facts
from curate.index.build import Built, build, faiss_module, is_exact, new_index, save
from curate.index.model import load_fitting, settings_from
from curate.index.queries import COUNT, KEY, KINDS, Queries, QueryKind, digest_of, texts_of
from curate.index.recall import Exact, Rows
from curate.index.rows import Plan, blocks, empty_uids, gather, plan_rows, sample_rows
from curate.index.types import index_type
from curate.samples.columns import PlannedColumns

UNIT = "index"

log = logging.getLogger(__name__)


class IndexStage(Stage):
    """One unit: the indices of one experiment and model, for each modality, with one map of rows.

    Built in the driver's process by faiss's own threads. Memory is that of the largest index, see
    ``curate.index.types``, of the training sample, and of the model where its text tower has to make queries.

    Args:
        experiment: whose selection.
        alias: whose embeddings.
        settings: of the section ``index``.
        model: how to load the model for texts to measure with, in a pool that has none embedded. Default: as
            ``model.json`` names it.
    """

    inline = True
    code_version = 2

    def __init__(
        self, experiment: str, alias: str, settings: IndexSettings, model: ModelSettings | None = None
    ) -> None:
        self.experiment = experiment
        self.alias = alias
        self.index = settings
        self.model = model
        self.name = f"index/{experiment}_{alias}"
        facts = settings.facts()
        self.settings = {k: facts[k] for k in ("modalities", "type", "train_points", "seed", "recall")}

    def check(self, workspace: Workspace) -> None:
        """The file of ``index.queries`` can be read."""
        texts_of(self.index.queries, self.index.seed)

    def preflight(self, workspace: Workspace, planned: PlannedColumns | None) -> Iterator[str]:
        """Whether faiss understands the type of index, for vectors of any usual length."""
        if self.index.type == "auto":
            return
        faiss = faiss_module()
        said = ""
        for dim in (512, 768, 1024, 1152):
            try:
                faiss.index_factory(dim, self.index.type)
            except RuntimeError as error:
                said = str(error)
            else:
                return
        why = said.rpartition(": ")[2] or "not understood"
        yield f"index.type: '{self.index.type}' is no index of faiss ({why}); e.g. IVF1024,Flat or HNSW32"

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
        wanted = tuple(ref for path, ref in sorted(embedded.items()) if _shard(path) in selected)
        payload = {"selection": inputs_digest(selection), "queries": self._asked(workspace)}
        yield Unit(UNIT, (*selection, *wanted), payload)

    def _asked(self, workspace: Workspace) -> str | list[str | None]:
        """What the texts that are asked with depend on, beside the embeddings."""
        facts = read_model(workspace, self.alias)
        if self._captions(facts):
            return "captions"
        model = self.model or settings_from(facts)
        _, texts = texts_of(self.index.queries, self.index.seed)
        return [digest_of(texts), model.model, model.pretrained, model.text_model]

    def _captions(self, facts: Mapping[str, Any]) -> bool:
        return self.index.queries == "auto" and "text" in _modalities(facts)

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Build the indices."""
        model = read_model(workspace, self.alias)
        dim = int(model["dim"])
        embedded = {_shard(ref.path) for ref in unit.inputs if ref.path.startswith("embeddings/")}
        selection = Selection(workspace, self.experiment)
        shards = {shard: shard in embedded for shard in selection.kept}
        plan = plan_rows(workspace, selection, self.alias, shards, None)
        wanted = self._modalities(_modalities(model))
        factory = self.index.type
        if factory == "auto":
            factory = index_type(plan.rows, dim, self.index.train_points)
        count = min(COUNT, (plan.rows + 9) // 10)
        held_out, trained = sample_rows(plan, count, self.index.train_points, self.index.seed)
        queries: dict[QueryKind, Queries] = {}
        missing: dict[QueryKind, str] = {}
        if not is_exact(new_index(factory, dim)):
            queries, missing = self._queries(workspace, selection, plan, model, held_out)
        outputs = [self._write_uids(workspace, selection, shards, plan)]
        indices: dict[str, Any] = {}
        for modality in wanted:
            built = self._build(workspace, selection, plan, modality, factory, dim, queries, trained)
            path = self._path(f"{modality}.index")
            with workspace.writing(path) as temporary:
                save(built.index, temporary)
                outputs.append(ref_of(temporary, path))
            indices[modality] = index_facts(factory, built, queries, self.index.recall, outputs[-1].size)
        about = {
            "format": FORMAT,
            "experiment": self.experiment,
            "model": self.alias,
            "weights": model["weights"],
            "text_weights": model.get("text_weights"),
            "checkpoint": model["checkpoint"],
            "metric": "inner_product",
            "dim": dim,
            "rows": plan.rows,
            "left_out": dict(sorted(plan.left_out.items())),
            "selection": unit.payload["selection"],
            "not_measured": missing,
            "indices": indices,
        }
        for modality in wanted:
            for said in filter(None, (caveat(about, modality, kind) for kind in KINDS)):
                log.warning("%s, %s.index: %s", self.name, modality, said)
        outputs.append(workspace.write_json(self._path("index.json"), about))
        stats = {"indices": indices, "not_measured": missing}
        total = plan.rows + sum(plan.left_out.values())
        return Outcome(tuple(outputs), total, plan.rows, dict(plan.left_out), stats)

    def _modalities(self, there: Sequence[str]) -> list[str]:
        """Those that are asked for, as far as the model has embedded them."""
        found: list[str] = [m for m in self.index.modalities if m in there]
        if not found:
            raise UserError(
                f"index.modalities: {' and '.join(self.index.modalities)} of '{self.alias}' is not embedded, "
                f"only {' and '.join(there)}; see embed.models.{self.alias}.modalities"
            )
        return found

    def _queries(
        self,
        workspace: Workspace,
        selection: Selection,
        plan: Plan,
        model: dict[str, Any],
        rows: Rows,
    ) -> tuple[dict[QueryKind, Queries], dict[QueryKind, str]]:
        """Queries of every kind that can be had, and why there are none of the others.

        Args:
            model: the facts of ``model.json``.
            rows: of the index, held out from training.
        """
        there, dim = _modalities(model), int(model["dim"])
        queries: dict[QueryKind, Queries] = {}
        missing: dict[QueryKind, str] = {}

        def of_pool(modality: str, source: str) -> Queries:
            vectors = gather(workspace, selection, self.alias, modality, plan, dim, rows)
            return Queries(vectors, source, rows)

        if self._captions(model):
            queries["text"] = of_pool("text", "captions")
        else:
            source, texts = texts_of(self.index.queries, self.index.seed)
            try:
                settings = self.model or settings_from(model)
                clip = load_fitting(settings, model, f"embeddings/{self.alias} are made")
                queries["text"] = Queries(clip.encode_texts(texts), source)
            except UserError as error:
                if self.index.queries != "auto":
                    raise UserError(f"{KEY}: {error}") from None
                missing["text"] = (
                    f"no texts are embedded as '{self.alias}', and its text tower cannot be loaded: {error}; "
                    f"when it can be, set `{KEY}: prompts` and run `curate index` again"
                )
        if "image" in there:
            queries["image"] = of_pool("image", "images")
        else:
            missing["image"] = f"no images are embedded as '{self.alias}'"
        return queries, missing

    def _build(
        self,
        workspace: Workspace,
        selection: Selection,
        plan: Plan,
        modality: str,
        factory: str,
        dim: int,
        queries: Mapping[QueryKind, Queries],
        trained: Rows,
    ) -> Built:
        index = new_index(factory, dim)
        where = (workspace, selection, self.alias, modality, plan, dim)
        training = gather(*where, trained if not index.is_trained else trained[:0])
        asked = {kind: Exact(q.vectors, q.own(kind == modality)) for kind, q in queries.items()}
        return build(index, factory, training, blocks(*where), asked, self.index.recall)

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


def _shard(path: str) -> str:
    """``embeddings/b32/img_emb/img_emb_00042.npy`` → ``00042``."""
    return path.rpartition("/")[2].partition(".")[0].rpartition("_")[2]


def _modalities(model: Mapping[str, Any]) -> Sequence[str]:
    """What a model has embedded, by the facts of ``model.json``."""
    found: Sequence[str] = model.get("modalities", KINDS)
    return found
