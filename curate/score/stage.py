"""The stage ``score/<name>``: one scorer's columns, shard by shard."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curate.clip.vectors import Vectors, open_vectors, read_model
from curate.config.models import EmbedSettings, ModelSettings
from curate.config.scorers import ScorerSettings
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.samples import columns_of, need, read_samples
from curate.dataset.workspace import FileRef, Workspace
from curate.errors import UserError
from curate.run.stage import Outcome, Stage, Unit
from curate.score.scorers import SCORERS, Scorer


class ScoreStage(Stage):
    """One unit per shard, with only the files that the scorer reads.

    A scorer of embeddings asks for a worker with a GPU where there is one: such a worker has the model
    loaded already, and the prompts need it once.
    """

    def __init__(self, name: str, settings: ScorerSettings, embed: EmbedSettings) -> None:
        self.scorer_name = name
        self.scorer: Scorer = SCORERS[settings.type](name, settings)  # type: ignore[arg-type]
        self.model = _model(name, self.scorer, embed)
        self.name = f"score/{name}"
        self.settings = dict(self.scorer.facts)
        if self.model is not None:
            self.settings["embedding"] = self.model.facts()
        self.gpu = self.model is not None  # type: ignore[misc] # of one scorer, not of the class

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """The shards that the stage before has committed."""
        alias = self.scorer.model
        refs = RecordStore(workspace).outputs(f"embed/{alias}" if alias else "download")
        for path, ref in refs.items():
            shard = path.rpartition("/")[2].removesuffix(".parquet")
            if alias is None:
                if path == layout.image_table(shard):
                    yield Unit(shard, (ref,))
                continue
            shard = shard.removeprefix("metadata_")
            if path == layout.embedding_table(alias, shard):
                yield Unit(shard, (ref, refs[layout.embedding(alias, "image", shard)]))

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Score one shard."""
        samples, columns = self._scores(workspace, unit.name)
        named = {f"{self.scorer_name}_{name}": column for name, column in columns.items()}
        table = pa.table({"uid": samples["uid"], **named})
        ref: FileRef = workspace.write_table(layout.scores(self.scorer_name, unit.name), table)
        missing = {name: table[name].null_count for name in table.column_names if table[name].null_count}
        return Outcome((ref,), table.num_rows, table.num_rows, {}, {"null": missing} if missing else {})

    def _scores(self, workspace: Workspace, shard: str) -> tuple[pa.Table, dict[str, Any]]:
        alias, place = self.scorer.model, f"score.scorers.{self.scorer_name}"
        if alias is None:
            known = columns_of(workspace, shard, [], [])
            for name in self.scorer.inputs:
                need(known, name, place)
            samples = read_samples(workspace, shard, self.scorer.inputs, known)
            return samples, dict(self.scorer.score(samples, None, _no_model))
        assert self.model is not None
        facts = read_model(workspace, alias)
        samples = workspace.read_table(layout.embedding_table(alias, shard), ["uid"])
        path = layout.embedding(alias, "image", shard)
        encode = functools.partial(_encode, self.model, alias, facts["checkpoint"])
        with open_vectors(workspace, path, samples.num_rows, int(facts["dim"])) as vectors:
            return samples, dict(self.scorer.score(samples, vectors, encode))


def _model(name: str, scorer: Scorer, embed: EmbedSettings) -> ModelSettings | None:
    if scorer.model is None:
        return None
    if scorer.model not in embed.models:
        known = ", ".join(sorted(embed.models)) or "none"
        raise UserError(f"score.scorers.{name}.model: no model named '{scorer.model}' (defined: {known})")
    return embed.models[scorer.model]


def _no_model(texts: tuple[str, ...]) -> tuple[Vectors, float]:
    raise AssertionError(f"a scorer without a model asked for the vectors of {len(texts)} texts")


@functools.lru_cache(maxsize=16)
def _encode(
    model: ModelSettings, alias: str, checkpoint: str, texts: tuple[str, ...]
) -> tuple[Vectors, float]:
    """Prompts with the very model that made the stored vectors, once per process."""
    from curate.clip.model import load

    clip = load(model)
    if clip.checkpoint != checkpoint:
        raise UserError(
            f"embed.models.{alias}: the weights of '{model.model}' have changed since the images were "
            "embedded; run `curate embed` again"
        )
    return clip.encode_texts(texts), clip.logit_scale
