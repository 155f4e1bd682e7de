"""The stage of a grid: many experiments over one pass of the columns, and what they keep side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.config.filters import Experiment
from curate.config.filters.grid import Grid, Point
from curate.dataset import layout
from curate.dataset.family import TABLES
from curate.dataset.workspace import Workspace
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import UserError
from curate.filter.frozen import Calibration, calibration
from curate.filter.grid_counts import Counting
from curate.filter.grid_files import Compared, read_comparison, write_comparison
from curate.filter.grid_page import page_of
from curate.reasons import FilterReason
from curate.rules.contract import Learned, Verdict
from curate.rules.judging import Judge
from curate.rules.learning import learn
from curate.rules.logic import Copies, Mask, combine, copies
from curate.rules.merged import Member, Merged, compile_merged
from curate.rules.program import Program, compile_experiment
from curate.rules.settings import facts_of_rule, settings_of
from curate.samples.columns import Column, need
from curate.samples.committed import Committed
from curate.samples.database import Database, open_database, reading_folder
from curate.samples.pool import Uids, doubles
from curate.samples.sorting import SortedPool, in_uid_order
from curate.samples.sources import Samples, Tables, samples_of
from curate.samples.tables import NO_UID

UNIT = "all"
SIMILARITY = "similarity"


class GridStage(Stage):
    """Writes ``grids/<name>/``; no selection.

    Args:
        name: of the grid.
        experiments: all of the config, by name.
        models: aliases of the embedding models; the first one's similarity is ``similarity``.
        scorers: names of the scorers.
        tables: published tables that are filtered instead of the workspace's samples.
    """

    inline = True

    def __init__(
        self,
        name: str,
        grid: Grid,
        experiments: Mapping[str, Experiment],
        models: tuple[str, ...],
        scorers: tuple[str, ...],
        tables: Tables | None = None,
    ) -> None:
        self.name = f"filter-grid/{name}"
        self.grid_name, self.grid = name, grid
        self.points = grid.points(name, experiments)
        self.models, self.scorers, self.tables = models, scorers, tables
        self.settings = _settings(grid, self.points, tables)
        self.frozen: dict[int, Calibration] = {}
        """Number of a point → what its experiment has learned elsewhere."""
        for number, point in enumerate(self.points):
            facts = settings_of(point.experiment) if point.experiment.frozen else {}
            found = calibration(point.title, point.experiment, facts)
            if found is not None:
                self.frozen[number] = found
                self.settings["points"][point.name]["frozen"] = found.digest

    def units(self, workspace: Workspace) -> Iterable[Unit]:
        """One unit, whose inputs are the files that any point reads; none without samples.

        Raises:
            UserError: a rule cannot be used.
            DataError: a file is not there that a rule reads.
        """
        samples = self._samples(workspace)
        if not samples.there():
            return []
        columns = samples.columns()
        with reading_folder() as scratch, open_database(scratch) as connection:
            program = self._compile(connection, columns, samples).program
            for number, frozen in self.frozen.items():
                point = self.points[number]
                alone = compile_experiment(point.title, point.experiment, columns, connection)
                frozen.check(workspace, alone, columns)
        means, language = self._beside(program, columns)
        read = {*program.all_columns(), *means, *([language] if language else ())}
        inputs = samples.inputs([columns[c] for c in sorted(read)], program.vectors(), self.name)
        others = [name for point in self.points for name in point.experiment.uses()]
        inputs += Committed(workspace).selections(others, self.name)
        return [Unit(UNIT, tuple(inputs))]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Learn what all points need, judge for all of them, count."""
        samples = self._samples(workspace)
        columns = samples.columns()
        aside = layout.selection_file(self._aside, "").rstrip("/")
        workspace.remove_tree(aside)
        try:
            with workspace.scratch() as scratch, open_database(scratch) as connection:
                merged = self._compile(connection, columns, samples)
                means, language = self._beside(merged.program, columns)
                program = merged.program
                read = (*program.all_columns(), *means, *([language] if language else ()))
                pool = in_uid_order(samples.pool(), not program.any_order, read, connection, scratch)
                given = self._given(workspace, merged)
                learned, _ = learn(merged.program, pool, connection, scratch, given)
                with Judge(merged.program, pool, learned, connection) as judge:
                    compared = _compare(judge, merged, means, language)
        finally:
            workspace.remove_tree(aside)
        outputs = write_comparison(workspace, self.grid_name, self.grid.description, self.points, compared)
        page = page_of(read_comparison(workspace, self.grid_name)).encode("utf-8", "replace")
        outputs.append(workspace.write_bytes(layout.grid_file(self.grid_name, "index.html"), page))
        totals = compared.totals
        dropped = {FilterReason.NOT_SELECTED.value: totals.rows - totals.any}
        return Outcome(
            tuple(outputs),
            totals.rows,
            totals.any,
            {reason: rows for reason, rows in dropped.items() if rows},
            {"points": len(self.points), "rules": len(merged.program.rules)},
        )

    @property
    def _aside(self) -> str:
        """Where rules keep files of their own during the run: no name that an experiment can have."""
        return f"grid-{self.grid_name}"

    def _samples(self, workspace: Workspace) -> Samples:
        return samples_of(workspace, self.models, self.scorers, self.tables)

    def _given(self, workspace: Workspace, merged: Merged) -> dict[str, Learned]:
        """What the rules of frozen points know already, with their files in place."""
        found: dict[str, Learned] = {}
        for number, frozen in self.frozen.items():
            title = self.points[number].title
            learned, _ = frozen.take(workspace, f"{self._aside}/{title}")
            for own, name in merged.parts[number].names.items():
                if own in learned:
                    file = {"file": f"{title}/{learned[own]['file']}"} if "file" in learned[own] else {}
                    found[name] = {**learned[own], **file}
        return found

    def _compile(self, connection: Database, columns: dict[str, Column], samples: Samples) -> Merged:
        members = [Member(point.place, point.experiment) for point in self.points]
        with samples.naming_absent():
            return compile_merged(self._aside, members, columns, connection)

    def _beside(self, program: Program, columns: dict[str, Column]) -> tuple[tuple[str, ...], str | None]:
        """The columns that are averaged, and the one with the language.

        What tables have to compute first is not asked for unless the rules do so anyway.
        """
        read = program.all_columns()
        there = {n: c for n, c in columns.items() if self.tables is None or c.family == TABLES or n in read}
        return _numbers(self.grid.means, read, columns, f"filter.grids.{self.grid_name}"), _language(there)


def _compare(judge: Judge, merged: Merged, means: tuple[str, ...], language: str | None) -> Compared:
    """Judge all rows for all points, and count."""
    points, pool = len(merged.parts), judge.pool
    counting, repeated = Counting(points, len(means)), np.zeros(points, np.int64)
    read = sorted({*merged.program.columns(), *means, *([language] if language else ())})
    for batch in pool.scan(read, merged.program.uids() if pool.ordered else Uids.TEXT):
        kept, more = _kept(merged, judge.verdicts(batch), batch.table.num_rows)
        repeated += more
        if not pool.ordered:
            kept[:, np.asarray(pc.equal(batch.table["uid"], NO_UID)).astype(bool)] = False
        values = np.empty((len(means), batch.table.num_rows))
        for i, column in enumerate(means):
            values[i] = doubles(batch.table[column])
        counting.add(kept, values, batch.table[language] if language else None)
    if isinstance(pool, SortedPool):
        counting.rows += pool.without_uid + pool.repeated
    thresholds = tuple(_thresholds(merged, i, judge.learned) for i in range(points))
    return Compared(counting.totals(), repeated, means, language, thresholds)


def _kept(merged: Merged, found: Mapping[str, Verdict], rows: int) -> tuple[Mask, Copies]:
    """Which rows each point keeps, bool, shape (points, rows), and how many more there are by repeats."""
    truths = {name: verdict.truth for name, verdict in found.items()}
    repeats = {name: v.repeats for name, v in found.items() if v.repeats is not None}
    kept, more = np.empty((len(merged.parts), rows), bool), np.zeros(len(merged.parts), np.int64)
    for i, part in enumerate(merged.parts):
        kept[i] = combine(part.keep, truths).passed
        if repeats.keys() & part.names.values():
            times = copies(part.keep, truths, repeats, rows)[kept[i]]
            more[i] = times.sum() - len(times)
    return kept, more


def _thresholds(merged: Merged, number: int, learned: Mapping[str, Learned]) -> dict[str, float]:
    """What the rules of a point cut at, as far as they learned it: rule and what → value."""
    rules = {rule.name: rule for rule in merged.program.rules}
    found = {}
    for own, name in merged.parts[number].names.items():
        account = rules[name].account(learned[name])
        for what in ("threshold", "least", "most"):
            if account.get(what) is not None:
                found[f"{own}_{what}"] = float(account[what])
    return found


def _numbers(
    asked: Sequence[str] | None, read: Sequence[str], columns: dict[str, Column], place: str
) -> tuple[str, ...]:
    """The columns that are averaged.

    Raises:
        UserError: there is none of a name, or it has no numbers.
    """
    if asked is None:
        # A 64-bit hash is no amount.
        numbers = {c for c in columns if _has_numbers(columns[c]) and columns[c].type != pa.uint64()}
        return tuple(c for c in dict.fromkeys([SIMILARITY, *read]) if c in numbers)
    for name in asked:
        if not _has_numbers(need(columns, name, f"{place}.means")):
            raise UserError(f"{place}.means: '{name}' is {columns[name].type}, not a number")
    return tuple(dict.fromkeys(asked))


def _has_numbers(column: Column) -> bool:
    kind = column.type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _language(columns: Mapping[str, Column]) -> str | None:
    """The column with the language of the text."""
    ending = sorted(name for name in columns if name.endswith("_lang"))
    names = [name for name in ("text_lang", "lang", *ending) if name in columns]
    return next((n for n in names if pa.types.is_string(columns[n].type)), None)


def _settings(grid: Grid, points: Sequence[Point], tables: Tables | None) -> dict[str, Any]:
    """What decides the comparison, as JSON values; files that rules name by their digests."""
    known: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for point in points:
        facts = point.experiment.facts()
        rules = {}
        for name, rule in point.experiment.rules.items():
            key = repr((name, facts["rules"][name]))
            if key not in known:
                known[key] = facts_of_rule(name, rule)
            rules[name] = known[key]
        found[point.name] = {"rules": rules, "keep": facts["keep"], "order": list(rules)}
    described = {"description": grid.description, "means": list(grid.means) if grid.means else None}
    return {
        **described,
        "points": found,
        "order": list(found),
        **({"tables": tables.facts()} if tables else {}),
    }
