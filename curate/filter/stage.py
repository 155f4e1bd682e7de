"""The filter stage: one experiment over all shards, in the driver, with DuckDB's threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.config.filters import Experiment
from curate.dataset import layout
from curate.dataset.selections import COUNTS, SUBSET
from curate.dataset.uid import usable_halves
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import UserError
from curate.filter.frozen import Calibration, calibration, makers
from curate.filter.subset import SortingWriter, SubsetWriter
from curate.rules.account.breakdown import account_columns
from curate.rules.account.funnel import Funnel
from curate.rules.account.run import FUNNEL, LEARNED, ExperimentRun
from curate.rules.judging import Judge
from curate.rules.learning import learn
from curate.rules.logic import Copies, Mask
from curate.rules.program import Program, compile_experiment
from curate.rules.settings import settings_of
from curate.samples.columns import Column, PlannedColumns
from curate.samples.database import Database, open_database, reading_folder
from curate.samples.pool import Batch
from curate.samples.sorting import SortedPool, in_uid_order
from curate.samples.sources import Samples, Tables, inputs_of, samples_of

UNIT = "all"
TABLES = "tables"
"""Stands for a shard where there are none."""


class FilterStage(Stage):
    """Writes ``selections/<name>/``.

    Args:
        name: of the experiment.
        experiment: its rules.
        models: aliases of the embedding models; the first one's similarity is ``similarity``.
        scorers: names of the scorers.
        account_by: columns that the account is broken down by; None: the usual ones of those that are read.
        tables: published tables that are filtered instead of the workspace's samples.
    """

    inline = True
    code_version = 3

    def __init__(
        self,
        name: str,
        experiment: Experiment,
        models: tuple[str, ...],
        scorers: tuple[str, ...],
        account_by: tuple[str, ...] | None = None,
        tables: Tables | None = None,
    ) -> None:
        self.name = f"filter/{name}"
        self.experiment_name = name
        self.experiment = experiment
        self.models, self.scorers = models, scorers
        self.account_by, self.tables = account_by, tables
        try:
            self.selecting = settings_of(experiment)
        except UserError as error:
            raise UserError(f"filter.experiments.{name}.{error}") from None
        """What decides the selection, without what only the account is told."""
        self.frozen: Calibration | None = calibration(name, experiment, self.selecting)
        if self.frozen is not None:
            self.selecting["frozen"]["digest"] = self.frozen.digest
        accounting = {} if account_by is None else {"account_by": list(account_by)}
        source = {"tables": tables.facts()} if tables is not None else {}
        self.settings = {**self.selecting, **accounting, **source}

    def preflight(self, workspace: Workspace, planned: PlannedColumns | None) -> Iterator[str]:
        """Whether the rules can be compiled for the columns that will be there.

        An experiment that names a column whose type only its file tells is left to ``check``.
        """
        if planned is None or self.tables is not None:
            return
        with reading_folder() as scratch, open_database(scratch) as connection:
            try:
                compile_experiment(self.experiment_name, self.experiment, planned, connection)
            except UserError as error:
                said = str(error)
                if not any(name in said for name in planned.untyped):
                    yield said

    def check(self, workspace: Workspace) -> None:
        """Compile the rules, when there are samples yet.

        Raises:
            UserError: a rule cannot be used.
        """
        self._checked(workspace)

    def units(self, workspace: Workspace) -> Iterable[Unit]:
        """One unit, whose inputs are just the files that the rules read; none without samples.

        Raises:
            UserError: a rule cannot be used, or what it learned elsewhere is not about these columns.
            DataError: a shard lacks a family that the rules read.
        """
        found = self._checked(workspace)
        if found is None:
            return []
        samples, program, by = found
        if self.frozen is not None:
            self.frozen.check(workspace, program, samples.columns())
        return [
            Unit(
                UNIT,
                inputs_of(
                    workspace,
                    samples,
                    (*program.all_columns(), *by),
                    program.vectors(),
                    self.experiment.uses(),
                    self.name,
                ),
            )
        ]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Learn in one pass over the pool, judge in a second; what is frozen needs no first."""
        samples = self._samples(workspace)
        columns = samples.columns()
        with workspace.scratch() as scratch, open_database(scratch) as connection:
            program, by = self._compile(connection, columns, samples)
            pool = in_uid_order(
                samples.pool(), not program.any_order, (*program.all_columns(), *by), connection, scratch
            )
            given, copied = self.frozen.take(workspace) if self.frozen is not None else ({}, [])
            learned, outputs = learn(program, pool, connection, scratch, given)
            outputs += copied
            with Judge(program, pool, learned, connection) as judge:
                funnel, selected = self._select(workspace, judge, by, scratch)
        files = {ref.path.rsplit("/", 1)[-1]: ref for ref in outputs}
        outputs += selected
        facts = {
            "experiment": self.experiment_name,
            "description": self.experiment.description,
            **funnel.facts(learned),
        }
        if self.frozen is not None:
            self.frozen.show(facts["rules"])
        path = layout.selection_file(self.experiment_name, FUNNEL)
        outputs.append(workspace.write_json(path, facts))
        outputs.append(self._write_learned(workspace, program, columns, learned, funnel.rows, files))
        self._remove_others(workspace, outputs)
        return Outcome(
            tuple(outputs),
            funnel.rows,
            funnel.kept,
            dict(funnel.reasons),
            {"total": funnel.total, "shards": len(pool.shards)},
        )

    def _checked(self, workspace: Workspace) -> tuple[Samples, Program, tuple[str, ...]] | None:
        """The rules, compiled for the samples there are; None when there are none yet."""
        samples = self._samples(workspace)
        if not samples.there():
            return None
        with reading_folder() as scratch, open_database(scratch) as connection:
            return samples, *self._compile(connection, samples.columns(), samples)

    def _samples(self, workspace: Workspace) -> Samples:
        return samples_of(workspace, self.models, self.scorers, self.tables)

    def _compile(
        self, connection: Database, columns: dict[str, Column], samples: Samples
    ) -> tuple[Program, tuple[str, ...]]:
        """The program, and the columns that its account is broken down by."""
        with samples.naming_absent():
            program = compile_experiment(self.experiment_name, self.experiment, columns, connection)
            return program, account_columns(self.account_by, program.all_columns(), columns)

    def _select(
        self, workspace: Workspace, judge: Judge, by: tuple[str, ...], scratch: Path
    ) -> tuple[Funnel, list[FileRef]]:
        """Write the subset file and how many of its rows are of each shard."""
        name, pool = self.experiment_name, judge.pool
        funnel = Funnel(judge.program.rules, judge.program.keep, judge.program.scopes, by)
        if isinstance(pool, SortedPool):
            funnel.leave_out(pool.without_uid, pool.repeated, seen=False)
        counts: list[tuple[str, int, int, int]] = []
        refs = []
        subset = layout.selection_file(name, SUBSET)
        with workspace.writing(subset) as temporary:
            writer = SubsetWriter(temporary) if pool.ordered else SortingWriter(temporary, scratch)
            with writer:
                for batch, judged in judge.all_batches(by):
                    kept = funnel.add(judged.verdicts, judged.copies, batch.table)
                    uids = usable_halves(batch.table["uid"], kept)
                    if judged.copies is not None:
                        uids = np.repeat(uids, judged.repeats(kept))
                    writer.add(uids)
                    if self.tables is None:
                        counts += _counts_by_shard(batch, kept, judged.copies)
            refs.append(ref_of(temporary, subset))
        if isinstance(writer, SortingWriter):
            funnel.leave_out(writer.without_uid, writer.repeated, seen=True)
        if self.tables is not None:
            counts.append((TABLES, funnel.rows, funnel.kept, funnel.total))
        path = layout.selection_file(name, "counts.parquet")
        table = pa.table(dict(zip(COUNTS.names, zip(*counts, strict=True), strict=True)), COUNTS)
        refs.append(workspace.write_table(path, table))
        return funnel, refs

    def _write_learned(
        self,
        workspace: Workspace,
        program: Program,
        columns: dict[str, Column],
        learned: Any,
        rows: int,
        files: Mapping[str, FileRef],
    ) -> FileRef:
        made_by = makers(workspace, {name: columns[name] for name in program.all_columns()})
        run = ExperimentRun(
            experiment=self.experiment_name,
            settings=dict(self.selecting),
            rows=rows,
            frozen=self.frozen.facts() if self.frozen is not None else None,
            columns={
                name: {
                    "family": str(columns[name].family),
                    "type": str(columns[name].type),
                    "made_by": made_by.get(columns[name].family),
                }
                for name in program.all_columns()
            },
            rules={
                rule.name: {"kind": rule.kind, "expression": rule.text, **learned[rule.name]}
                for rule in program.rules
            },
            files={name: {"size": ref.size, "digest": ref.digest} for name, ref in sorted(files.items())},
        )
        return workspace.write_json(layout.selection_file(self.experiment_name, LEARNED), run.model_dump())

    def _remove_others(self, workspace: Workspace, outputs: list[FileRef]) -> None:
        """Files of shards or rules that an earlier run of this experiment had."""
        ours = {ref.path for ref in outputs}
        folder = layout.selection_file(self.experiment_name, "x").rsplit("/", 1)[0]
        for path in workspace.sizes(folder):
            if path not in ours:
                workspace.remove(path)


def _counts_by_shard(batch: Batch, kept: Mask, copies: Copies | None) -> Iterator[tuple[str, int, int, int]]:
    """Name, samples, kept ones, and the sum of their repeats, of every shard."""
    for shard, rows in batch.slices():
        here = int(np.count_nonzero(kept[rows]))
        total = here if copies is None else int(copies[rows] @ kept[rows])
        yield shard, rows.stop - rows.start, here, total
