"""Why one sample is in or out: the verdict of every rule, with the values it saw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curate.config.base import fingerprint
from curate.config.filters import Experiment
from curate.dataset import layout
from curate.dataset.family import base_family
from curate.dataset.records import RecordStore, inputs_digest
from curate.dataset.uid import is_uid, shard_of
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.rules.account.breakdown import account_columns
from curate.rules.account.funnel import reason_of
from curate.rules.account.run import read_run
from curate.rules.contract import CompiledRule, Learned
from curate.rules.judging import Judge, Judged
from curate.rules.logic import combine, written
from curate.rules.program import Program, compile_experiment
from curate.rules.settings import settings_of
from curate.samples.database import open_database, reading_folder
from curate.samples.pool import Batch
from curate.samples.sources import Samples, Tables, inputs_of, samples_of
from curate.samples.tables import Place, TablesPool


@dataclass(frozen=True)
class RuleVerdict:
    """What one rule says about a sample.

    Attributes:
        values: the columns that the rule reads, as its SQL sees them; None for NULL and NaN.
        note: what it learned from the pool that matters here; empty for most rules.
    """

    rule: str
    kind: str
    expression: str
    result: Literal["pass", "fail", "missing"]
    values: dict[str, Any]
    note: str


@dataclass(frozen=True)
class Verdict:
    """What an experiment says about a sample; ``reason`` is None when it is kept."""

    experiment: str
    uid: str
    shard: str
    keep: str
    kept: bool
    reason: str | None
    rules: tuple[RuleVerdict, ...]


def verdict(
    workspace: Workspace,
    name: str,
    experiment: Experiment,
    models: tuple[str, ...],
    scorers: tuple[str, ...],
    uid: str,
    tables: Tables | None = None,
) -> Verdict:
    """Judge one sample again, from the values that the experiment learned and the row itself.

    Reads ``learned.json``, the columns of one shard and a row group of files of uids; of tables all uids, to
    find it.

    Raises:
        UserError: the experiment has not been run, or not with these rules; the uid is no sample.
    """
    if not is_uid(uid):
        raise UserError(f"'{uid}' is not a uid: expected 32 lower-case hex digits")
    with open_judge(workspace, name, experiment, models, scorers, tables) as judge:
        pool, columns = judge.pool, judge.program.all_columns()
        if isinstance(pool, TablesPool):
            found = verdict_of_rows(judge, pool, pool.places(uid))
            if found is None:
                raise UserError(f"{uid}: no row of the tables has this uid")
            return found
        shards = int(workspace.read_json(layout.DATASET)["shards"])
        shard = layout.shard_name(shard_of(uid, shards), shards)
        if shard not in pool.shards:
            raise UserError(f"{uid}: shard {shard}, where it would be, has no {base_family(workspace)}")
        samples = pool.read(shard, columns)
        row = samples.filter(pc.equal(samples["uid"], uid))
        if not row.num_rows:
            raise UserError(f"{uid}: no sample of shard {shard} has this uid (its image may have failed)")
        return verdict_on(judge, row, shard)


def verdict_of_rows(judge: Judge, pool: TablesPool, places: Iterable[Place]) -> Verdict | None:
    """Judge the rows of published tables that have one uid: the one that is kept, or else the first.

    Where rules need uid order, only the first was looked at.
    """
    first = None
    for place in places:
        row = pool.read(place.shard, judge.program.all_columns()).slice(place.row, 1)
        found = verdict_on(judge, row, place.shard)
        if found.kept or not judge.program.any_order:
            return found
        first = first or found
    return first


def verdict_on(judge: Judge, row: pa.Table, shard: str) -> Verdict:
    """Judge one sample.

    Args:
        row: ``uid`` and all columns that the judge's rules read, of one sample.
        shard: that it is of.
    """
    program = judge.program
    (judged,) = judge.batch(Batch(row, ((shard, 1),)))
    kept = bool(combine(program.keep, judged.verdicts).passed[0])
    return Verdict(
        program.name,
        row["uid"][0].as_py(),
        shard,
        written(program.keep),
        kept,
        reason_of(program.keep, judged.verdicts, 0),
        tuple(_rule_verdict(rule, judged, judge.learned[rule.name]) for rule in program.rules),
    )


@contextmanager
def open_judge(
    workspace: Workspace,
    name: str,
    experiment: Experiment,
    models: tuple[str, ...],
    scorers: tuple[str, ...],
    tables: Tables | None = None,
) -> Iterator[Judge]:
    """The judge of an experiment that was run, with what it learned then.

    Raises:
        UserError: the experiment has not been run, or not with these rules.
        StaleError: it was run on other rows or values than are there now.
    """
    learned = _learned(workspace, name, experiment)
    samples = samples_of(workspace, models, scorers, tables)
    samples.need()
    with reading_folder() as scratch, open_database(scratch, threads=1) as connection:
        program = compile_experiment(name, experiment, samples.columns(), connection)
        _check_inputs(workspace, name, experiment, program, samples)
        with Judge(program, samples.pool(), learned, connection) as judge:
            yield judge


class StaleError(UserError):
    """What an experiment looked at has changed since it was run."""


def _check_inputs(
    workspace: Workspace, name: str, experiment: Experiment, program: Program, samples: Samples
) -> None:
    stage = f"filter/{name}"
    record = next(RecordStore(workspace).iterate(stage), None)
    if record is None:
        raise UserError(f"experiment '{name}' has no selection in {workspace.url} yet; run filter first")
    by = account_columns(record.settings.get("account_by"), program.all_columns(), samples.columns())
    inputs = inputs_of(
        workspace, samples, (*program.all_columns(), *by), program.vectors(), experiment.uses(), stage
    )
    if inputs_digest(inputs) != record.inputs_digest:
        raise StaleError(
            f"experiment '{name}' was run on other samples or columns than are in {workspace.url} now; "
            "run `curate filter` again"
        )


def _learned(workspace: Workspace, name: str, experiment: Experiment) -> Mapping[str, Learned]:
    run = read_run(workspace, name)
    if run is None:
        raise UserError(f"experiment '{name}' has no selection in {workspace.url} yet; run filter first")
    if fingerprint(_asked(run.settings)) != fingerprint(_asked(settings_of(experiment))):
        raise UserError(f"experiment '{name}' has other rules now than when it was run; run filter again")
    learned: Mapping[str, Learned] = run.rules
    return learned


def _asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what only the workspace could tell that numbers were taken from: it may be gone."""
    frozen = settings.get("frozen")
    return {**settings, "frozen": frozen["workspace"] if frozen else None}


def _rule_verdict(rule: CompiledRule, judged: Judged, learned: Learned) -> RuleVerdict:
    truth = judged.verdicts[rule.name]
    result: Literal["pass", "fail", "missing"] = "missing"
    if truth.passed[0]:
        result = "pass"
    elif truth.failed[0]:
        result = "fail"
    values = {name: judged.samples[name][0].as_py() for name in sorted(rule.columns)}
    note = rule.note(learned, judged.listed[rule.name])
    if "from" in learned:
        note = f"{note}, learned in {learned['from']}" if note else f"learned in {learned['from']}"
    return RuleVerdict(rule.name, rule.kind, rule.text, result, values, note)
