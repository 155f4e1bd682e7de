"""The stages ``learn/<name>`` and ``score/<name>``: one scorer's columns, shard by shard."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.config.kinds import PLUGIN
from curate.config.models import EmbedSettings, ScoreSettings
from curate.config.scorers.base import ScorerSettings
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace
from curate.engine.stage import Outcome, Stage, Unit, in_one_pass
from curate.errors import UserError
from curate.samples.columns import Column, PlannedColumns, need
from curate.score.contract import Columns, ColumnScorer, PixelScorer, Scorer, Shard, make_scorer
from curate.score.inputs import find_needs, input_files, open_shard, read_learned
from curate.score.pixels import show_images


def score_stages(settings: ScoreSettings, embed: EmbedSettings) -> list[Stage]:
    """The stages of all scorers, each behind those whose columns it reads.

    Raises:
        UserError: scorers that read each other's columns in a circle, or a scorer's own errors.
    """
    made = {
        name: ScoreStage(name, one, embed, tuple(n for n in settings.scorers if n != name))
        for name, one in settings.scorers.items()
    }
    ordered: list[Stage] = []
    for name in _in_order({name: stage.needs.scorers for name, stage in made.items()}):
        stage = made[name]
        if stage.scorer.learns:
            ordered.append(LearnStage(name, settings.scorers[name], embed, stage.others))
        ordered.append(stage)
    pixels = [s for s in ordered if isinstance(s, ScoreStage) and isinstance(s.scorer, PixelScorer)]
    for gpu in (False, True):
        in_one_pass([stage for stage in pixels if stage.gpu is gpu])
    return ordered


def _in_order(uses: Mapping[str, Sequence[str]]) -> list[str]:
    try:
        return list(TopologicalSorter(uses).static_order())
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise UserError(f"score.scorers read each other's columns in a circle: {circle}") from None


class _ScorerStage(Stage):
    """What learning and scoring share: a scorer and what it reads."""

    kind: ClassVar[str] = "score"

    def __init__(
        self, name: str, settings: ScorerSettings, embed: EmbedSettings, others: tuple[str, ...] = ()
    ) -> None:
        self.scorer_name = name
        self.place = f"score.scorers.{name}"
        self.scorer: Scorer[Any] = make_scorer(name, settings)
        self.others = others
        self.needs = find_needs(self.scorer, self.place, embed.models, others)
        self.name = f"{self.kind}/{name}"
        self.code_version = self.scorer.code_version  # type: ignore[misc] # of one scorer, not of the class
        self.settings = {"type": settings.kind, **self.scorer.facts}
        if settings.plugin_digest:
            self.settings[PLUGIN] = settings.plugin_digest
        if self.needs.models:
            self.settings["embedding"] = {a: m.facts() for a, m in self.needs.models.items()}
        self.gpu = self.scorer.gpu  # type: ignore[misc] # of one scorer, not of the class

    @property
    def verb(self) -> str:
        """Both belong to ``curate score``."""
        return "score"

    def open(
        self, workspace: Workspace, shard: str, learned: Mapping[str, npt.NDArray[Any]]
    ) -> AbstractContextManager[Shard]:
        """What the scorer reads of a shard."""
        return open_shard(workspace, shard, self.scorer, self.needs, self.place, learned)


class LearnStage(_ScorerStage):
    """One unit: what a scorer has to know about all shards before it can score one."""

    kind = "learn"

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """The only unit, as soon as there is a shard to learn from."""
        shards = dict(input_files(self.scorer, self.needs, workspace))
        if shards:
            yield Unit("all", tuple(ref for refs in shards.values() for ref in refs), {"shards": [*shards]})

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Learn and store the arrays."""
        arrays = self.scorer.learn(unit.payload["shards"], lambda shard: self.open(workspace, shard, {}))
        out = io.BytesIO()
        np.savez(out, **{name: arrays[name] for name in sorted(arrays)})  # type: ignore[arg-type]
        ref = workspace.write_bytes(layout.learned(self.scorer_name), out.getvalue())
        return Outcome((ref,), 0, 0)


class ScoreStage(_ScorerStage):
    """One unit per shard, with only the files that the scorer reads."""

    def plan_columns(self, planned: PlannedColumns) -> None:
        """Its own."""
        if self.scorer.outputs is None:
            planned.untyped.add(f"{self.scorer_name}_")
            return
        for field in self.scorer.outputs:
            name = f"{self.scorer_name}_{field.name}"
            planned[name] = Column(Family.scores(self.scorer_name), name, field.type)

    def preflight(self, workspace: Workspace, planned: PlannedColumns | None) -> Iterator[str]:
        """Whether something makes the columns that it reads."""
        for column in self.scorer.columns if planned is not None else ():
            if planned is not None and not planned.may_have(column):
                try:
                    need(planned, column, self.place)
                except UserError as error:
                    yield str(error)

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        """The shards whose files are committed; none before the scorer has learned what it must."""
        learned: tuple[FileRef, ...] = ()
        if self.scorer.learns:
            learned = tuple(RecordStore(workspace).outputs(f"learn/{self.scorer_name}").values())
            if not learned:
                return
        for shard, refs in input_files(self.scorer, self.needs, workspace):
            yield Unit(shard, refs + learned)

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Score one shard."""
        if isinstance(self.scorer, PixelScorer):
            return self.run_together(workspace, [(self, unit)])[0]
        assert isinstance(self.scorer, ColumnScorer)
        with self.open(workspace, unit.name, self._learned(workspace)) as shard:
            return self._write(workspace, shard, self.scorer.score(shard))

    def run_together(self, workspace: Workspace, parts: Sequence[tuple[Stage, Unit]]) -> list[Outcome]:
        """Score one shard with several scorers of pixels, which see every image decoded once."""
        stages = [cast(ScoreStage, stage) for stage, _ in parts]
        name = parts[0][1].name
        with contextlib.ExitStack() as stack:
            shards = [stack.enter_context(s.open(workspace, name, s._learned(workspace))) for s in stages]
            scores = [cast(PixelScorer[Any], s.scorer).start(h) for s, h in zip(stages, shards, strict=True)]
            show_images(workspace, name, shards[0].samples["uid"].to_pylist(), scores)
            return [
                stage._write(workspace, shard, one.columns())
                for stage, shard, one in zip(stages, shards, scores, strict=True)
            ]

    def _learned(self, workspace: Workspace) -> Mapping[str, npt.NDArray[Any]]:
        return read_learned(workspace, layout.learned(self.scorer_name)) if self.scorer.learns else {}

    def _write(self, workspace: Workspace, shard: Shard, columns: Columns) -> Outcome:
        """Commit the columns under the scorer's prefix; UserError when they are not those it declares."""
        declared = self.scorer.outputs
        made = pa.schema([(name, column.type) for name, column in columns.items()])
        if declared is not None and made != declared:
            raise UserError(f"{self.place}: makes {_listed(made)}, but declares {_listed(declared)}")
        named = {f"{self.scorer_name}_{name}": column for name, column in columns.items()}
        table = pa.table({"uid": shard.samples["uid"], **named})
        ref = workspace.write_table(Family.scores(self.scorer_name).path(shard.name), table)
        missing = {name: table[name].null_count for name in table.column_names if table[name].null_count}
        return Outcome((ref,), table.num_rows, table.num_rows, {}, {"null": missing} if missing else {})


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
