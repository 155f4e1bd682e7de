"""The filter stage: one experiment over all shards, in the driver, with DuckDB's threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from curate.config.filters import Experiment
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.samples import BASES, Column, base_family, family_path
from curate.dataset.selections import COUNTS, SUBSET
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.errors import UserError
from curate.filter.subset import SubsetWriter
from curate.rules.database import open_database, scratch_folder
from curate.rules.experiment import Judge, Program, compile_experiment, learn
from curate.rules.families import Families, settings_of
from curate.rules.folded import FoldedPool
from curate.rules.funnel import Funnel
from curate.run.stage import Outcome, Stage, Unit

UNIT = "all"
LEARNED_FORMAT = 1


class FilterStage(Stage):
    """Writes ``selections/<name>/``.

    Args:
        name: of the experiment.
        experiment: its rules.
        models: aliases of the embedding models; the first one's similarity is ``similarity``.
        scorers: names of the scorers.
    """

    inline = True

    def __init__(
        self, name: str, experiment: Experiment, models: tuple[str, ...], scorers: tuple[str, ...]
    ) -> None:
        self.name = f"filter/{name}"
        self.experiment_name = name
        self.experiment = experiment
        self.models, self.scorers = models, scorers
        self.settings = settings_of(experiment)

    def units(self, workspace: Workspace) -> Iterable[Unit]:
        """One unit, whose inputs are just the files that the rules read; none without samples.

        Raises:
            UserError: a rule cannot be used.
            DataError: a shard lacks a family that the rules read.
        """
        store = RecordStore(workspace)
        families = Families(store)
        shards = families.shards()
        if not shards:
            return []
        columns = families.columns(workspace, shards[0], self.models, self.scorers)
        with scratch_folder(workspace) as scratch, open_database(scratch) as connection:
            program = self._compile(connection, columns, families)
        inputs = []
        base = base_family(workspace)
        used = {base: BASES[base]}
        used |= {columns[c].family: columns[c].stage for c in program.all_columns()}
        for family in sorted(used):
            inputs += [families.ref(used[family], family_path(family, s), self.name) for s in shards]
        for alias, modality in program.vectors():
            stage = f"embed/{alias}"
            inputs += [families.ref(stage, layout.embedding(alias, modality, s), self.name) for s in shards]
        for other in sorted(set(self.experiment.uses())):
            for name in ("counts.parquet", SUBSET):
                path = layout.selection_file(other, name)
                inputs.append(families.ref(f"filter/{other}", path, self.name))
        return [Unit(UNIT, tuple(inputs))]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Learn in one pass over the pool, judge in a second, shard by shard."""
        prefix, suffix = family_path(base_family(workspace), "*").split("*")
        shards = tuple(
            sorted(
                r.path.removeprefix(prefix).removesuffix(suffix)
                for r in unit.inputs
                if r.path.startswith(prefix)
            )
        )
        families = Families(RecordStore(workspace))
        columns = families.columns(workspace, shards[0], self.models, self.scorers)
        pool = FoldedPool(workspace, shards, columns)
        with scratch_folder(workspace) as scratch, open_database(scratch) as connection:
            program = self._compile(connection, columns, families)
            learned, outputs = learn(program, pool, connection, scratch)
            with Judge(program, pool, learned, connection) as judge:
                funnel, selected = self._select(workspace, judge)
        outputs += selected
        facts = {
            "experiment": self.experiment_name,
            "description": self.experiment.description,
            **funnel.facts(learned),
        }
        path = layout.selection_file(self.experiment_name, "funnel.json")
        outputs.append(workspace.write_json(path, facts))
        outputs.append(self._write_learned(workspace, program, columns, learned, funnel.rows))
        self._remove_others(workspace, outputs)
        return Outcome(
            tuple(outputs),
            funnel.rows,
            funnel.kept,
            dict(funnel.reasons),
            {"total": funnel.total, "shards": len(shards)},
        )

    def _compile(
        self, connection: duckdb.DuckDBPyConnection, columns: dict[str, Column], families: Families
    ) -> Program:
        try:
            return compile_experiment(self.experiment_name, self.experiment, columns, connection)
        except UserError as error:
            if families.absent and "unknown column" in str(error):
                raise UserError(f"{error} (not there yet: {', '.join(families.absent)})") from None
            raise

    def _select(self, workspace: Workspace, judge: Judge) -> tuple[Funnel, list[FileRef]]:
        """Write the subset file and how many of its rows are of each shard."""
        name = self.experiment_name
        funnel = Funnel(judge.program.rules, judge.program.keep, judge.program.scopes)
        counts: dict[str, list[Any]] = {field: [] for field in COUNTS.names}
        refs = []
        subset = layout.selection_file(name, SUBSET)
        with workspace.writing(subset) as temporary:
            with SubsetWriter(temporary) as writer:
                for batch, judged in judge.all_batches():
                    kept = funnel.add(judged.verdicts, len(judged.copies))
                    repeats = judged.repeats(kept)
                    writer.add(batch.table["uid"].filter(pa.array(kept)), repeats)
                    funnel.total += int(repeats.sum())
                    times = np.zeros(len(kept), np.int64)
                    times[kept] = repeats
                    for shard, rows in batch.slices():
                        here = times[rows]
                        row = (shard, len(here), int(kept[rows].sum()), int(here.sum()))
                        for field, value in zip(COUNTS.names, row, strict=True):
                            counts[field].append(value)
            refs.append(ref_of(temporary, subset))
        path = layout.selection_file(name, "counts.parquet")
        refs.append(workspace.write_table(path, pa.table(counts, COUNTS)))
        return funnel, refs

    def _write_learned(
        self,
        workspace: Workspace,
        program: Program,
        columns: dict[str, Column],
        learned: Any,
        rows: int,
    ) -> FileRef:
        facts = {
            "format": LEARNED_FORMAT,
            "experiment": self.experiment_name,
            "settings": dict(self.settings),
            "rows": rows,
            "columns": {
                name: {"family": columns[name].family, "type": str(columns[name].type)}
                for name in program.all_columns()
            },
            "rules": {
                rule.name: {"kind": rule.kind, "expression": rule.text, **learned[rule.name]}
                for rule in program.rules
            },
        }
        return workspace.write_json(layout.selection_file(self.experiment_name, "learned.json"), facts)

    def _remove_others(self, workspace: Workspace, outputs: list[FileRef]) -> None:
        """Files of shards or rules that an earlier run of this experiment had."""
        ours = {ref.path for ref in outputs}
        folder = layout.selection_file(self.experiment_name, "x").rsplit("/", 1)[0]
        for path in workspace.sizes(folder):
            if path not in ours:
                workspace.remove(path)
