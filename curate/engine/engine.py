"""Runs stages: plan, do, retry, quarantine, account.

Whatever happens to a process, what was committed stays: a unit counts when its record is written,
and the record is written last, by the worker that did the unit.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from curate import __version__, extras
from curate.config.models import RunSettings
from curate.dataset import layout
from curate.dataset.account import step_of
from curate.dataset.records import Record, RecordStore, inputs_digest
from curate.dataset.workspace import Workspace
from curate.engine.events import EventLog, utc_now
from curate.engine.plan import MISSING, Job, Plan, make_plan
from curate.engine.pool import Pool, SynchronousPool, check_cluster, start_pool
from curate.engine.progress import StageProgress, counted, duration_text, rate_text
from curate.engine.reporting import Send, reporting
from curate.engine.stage import Outcome, Stage
from curate.errors import BudgetExceededError, DataError, IncompleteError, UserError
from curate.reasons import with_fix
from curate.samples.columns import PlannedColumns
from curate.terminal import escaped
from curate.verbs import VERBS

INPUTS_KEPT = 16
"""Inputs named in a record; its digest covers all."""

WHY_NAMED = 5
"""Reasons that are named when nothing is left."""

WHY_SHOWN = 160
"""Letters of what changed that are shown on the terminal."""


@dataclass
class Engine:
    """Runs the stages of one pipeline on one workspace.

    Args:
        workspace: where everything is read and written.
        settings: cluster, retries, error budget.
        console: where progress goes.
        redo: names of stages (``download``, or ``all``) whose finished units may be done again
            although that may lose what cannot be had again.
    """

    workspace: Workspace
    settings: RunSettings
    console: Console
    redo: frozenset[str] = frozenset()
    quarantined: dict[str, int] = field(default_factory=dict)
    _pool: Pool | None = None

    def run(self, stages: Sequence[Stage], config_text: str = "") -> None:
        """Run stages in order.

        Raises:
            UserError: something the user has to mend before anything can go on.
            BudgetExceededError: too many units of a stage failed.
            IncompleteError: all stages ran, but some units are quarantined.
        """
        self.preflight(stages)
        with self.workspace.lock():
            self.workspace.clear_temporaries()
            if config_text:
                self.workspace.write_bytes(layout.CONFIG, config_text.encode())
            log = EventLog(self.workspace)
            log.emit("run_started", version=__version__, stages=[s.name for s in stages], config=config_text)
            try:
                for number, stage in enumerate(stages):
                    self._check_verb(stages, number)
                    self._run_stage(stage, log)
                    self._need_rows(stages, number)
                log.emit("run_finished", quarantined=self.quarantined)
            except BaseException as error:
                log.emit("run_stopped", error=f"{type(error).__name__}: {error}")
                raise
            finally:
                log.close()
                if self._pool is not None:
                    self._pool.close()
                    self._pool = None
        if self.quarantined:
            raise IncompleteError(_quarantine_text(self.quarantined))

    def preflight(self, stages: Sequence[Stage]) -> None:
        """Check all that can be checked before the first stage works.

        Raises:
            UserError: something will stop the run; a line for each problem.
        """
        found = list(check_cluster(self.settings)) if any(not stage.inline for stage in stages) else []
        planned = PlannedColumns() if stages and stages[0].verb == next(iter(VERBS)) else None
        for stage in stages:
            try:
                with extras.named(stage.name):
                    found += stage.preflight(self.workspace, planned)
            except UserError as error:
                found.append(str(error))
            if planned is not None:
                stage.plan_columns(planned)
        if found:
            raise UserError("\n".join(dict.fromkeys(found)))

    def preview(self, stages: Sequence[Stage]) -> None:
        """Say what a run would do now and why; stages behind one that has work are only named."""
        self.preflight(stages)
        for number, stage in enumerate(stages):
            self._check_verb(stages, number)
            plan = make_plan(stage, self.workspace, RecordStore(self.workspace))
            total = plan.done + len(plan.jobs)
            self.console.print(f"{stage.name:<22} {len(plan.jobs):,} of {counted(total, 'unit')} to do")
            for why, count in Counter(plan.stale.values()).items():
                self.console.print(f"{'':<22} {counted(count, 'unit')} again: {escaped(why)}")
            if plan.obsolete:
                self.console.print(f"{'':<22} {counted(len(plan.obsolete), 'unit')} no longer in the plan")
            if stage.guarded and (plan.stale or plan.obsolete):
                self.console.print(f"{'':<22} not done again unless --redo {stage.verb} is given")
            if plan.jobs:
                rest = [s.name for s in stages[stages.index(stage) + 1 :]]
                if rest:
                    self.console.print(f"then, as far as their inputs change: {', '.join(rest)}")
                return

    def _check_verb(self, stages: Sequence[Stage], number: int) -> None:
        """Before the first stage of a verb, let all of them check; one alone will do when it is planned."""
        verb = stages[number].verb
        if number and stages[number - 1].verb == verb:
            return
        group = list(itertools.takewhile(lambda stage: stage.verb == verb, stages[number:]))
        for stage in group if len(group) > 1 else ():
            stage.check(self.workspace)

    def _need_rows(self, stages: Sequence[Stage], number: int) -> None:
        """Behind the last stage of a verb: that anything came out of it, for whatever comes next.

        Raises:
            UserError: rows went in, and none came out; with the reasons, and what helps.
        """
        verb = stages[number].verb
        last = number + 1 == len(stages)
        if not last and stages[number + 1].verb == verb:
            return
        if last and verb == "filter":
            return  # an experiment that keeps nothing is an answer, too
        steps = [step_of(self.workspace, stage.name) for stage in stages if stage.verb == verb]
        counted_in = [step for step in steps if step is not None and step.rows_in]
        if not counted_in or any(step.rows_out for step in counted_in):
            return
        step = counted_in[-1]
        why = [with_fix(verb, reason, rows) for reason, rows in list(step.drops.items())[:WHY_NAMED]]
        raise UserError(
            "\n  ".join(
                [f"{step.stage}: none of {counted(step.rows_in, 'row')} is left, so the run stops here", *why]
            )
        )

    def _run_stage(self, stage: Stage, log: EventLog) -> None:
        store = RecordStore(self.workspace)
        plan = self._plan(stage, store, log)
        total = plan.done + len(plan.jobs)
        if not plan.jobs:
            stage.finish(self.workspace)
            store.fold(stage.name)
            self._say(f"[green]✓[/] {stage.name:<22} {counted(total, 'unit')} done before")
            return
        started = time.monotonic()
        plan = self._with_partners(stage, plan, store, log)
        with StageProgress(self.console, stage.name, total, plan.done) as progress:
            failed = self._do(stage, plan, store, log, progress)
        self._need_records(stage, plan, store)
        stage.finish(self.workspace)
        if failed:
            self.quarantined[stage.name] = failed
        else:
            store.fold(stage.name)
        seconds = time.monotonic() - started
        log.emit(
            "stage_finished", stage=stage.name, seconds=round(seconds, 3), rows=progress.rows, failed=failed
        )
        if progress.bytes_lost:
            lost = f"{progress.bytes_lost:,} bytes of damaged files hold no row"
            self._say(f"[yellow]![/] {stage.name:<22} {lost} (curate status has the reasons)")
        note = f", [red]{failed} quarantined[/]" if failed else ""
        before = f" ({plan.done} done before)" if plan.done else ""
        self._say(
            f"[green]✓[/] {stage.name:<22} {counted(len(plan.jobs), 'unit')}{before}, {progress.account()} "
            f"in {duration_text(seconds)}, {rate_text(progress.rows / max(seconds, 1e-9))}{note}"
        )

    def _need_records(self, stage: Stage, plan: Plan, store: RecordStore) -> None:
        """Raises DataError when the store does not list the records that were written a moment ago.

        Whatever comes next would take the shards that are listed for all there are.
        """
        lacking = {job.unit.name for job in plan.jobs} - store.units(stage.name)
        if lacking:
            raise DataError(
                f"{self.workspace.url}: the store does not list records that were just written, of "
                f"{counted(len(lacking), 'unit')} of {stage.name} (such as {min(lacking)}); run again"
            )

    def _say(self, text: str) -> None:
        """One line, however narrow the terminal is."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def _plan(self, stage: Stage, store: RecordStore, log: EventLog) -> Plan:
        """What is to do, after the records of what no longer counts are gone.

        Records go first: from here on no kill can leave a record beside outputs that are not its own.
        """
        plan = make_plan(stage, self.workspace, store)
        self._announce(stage, plan, log)
        forgotten = {*plan.stale, *(r.unit for r in plan.obsolete)}
        if forgotten:
            store.drop(stage.name, forgotten)
        for record in plan.obsolete:
            for ref in record.outputs:
                self.workspace.remove(ref.path)
        return plan

    def _with_partners(self, stage: Stage, plan: Plan, store: RecordStore, log: EventLog) -> Plan:
        """The plan, its jobs joined by those of the partners for the same units."""
        theirs: dict[str, list[tuple[Stage, Job]]] = {}
        for partner in stage.partners:
            for job in self._plan(partner, store, log).jobs:
                theirs.setdefault(job.unit.name, []).append((partner, job))
        return replace(
            plan, jobs=[replace(j, partners=tuple(theirs.get(j.unit.name, ()))) for j in plan.jobs]
        )

    def _announce(self, stage: Stage, plan: Plan, log: EventLog) -> None:
        """Say what changed; refuse to redo a guarded stage unasked."""
        log.emit(
            "stage_planned",
            stage=stage.name,
            todo=len(plan.jobs),
            done=plan.done,
            changes=dict(Counter(plan.stale.values())),
            retried=plan.retried,
            obsolete=len(plan.obsolete),
        )
        changes = Counter(plan.stale.values())
        if plan.obsolete:
            changes["units that no longer exist"] = len(plan.obsolete)
        other = {what: n for what, n in changes.items() if what != MISSING}
        if other and stage.guarded and not {stage.verb, "all"} & self.redo:
            why = "; ".join(f"{what} ({counted(n, 'unit')})" for what, n in other.items())
            raise UserError(
                f"{self.workspace.url}: this workspace's {stage.verb} was made with another config or input: "
                f"{why}. Use another workspace, or do it again with --redo {stage.verb}"
            )
        for why, count in changes.items():
            self._say(f"[yellow]↻[/] {stage.name:<22} {counted(count, 'unit')} again: {escaped(_short(why))}")

    def _do(
        self, stage: Stage, plan: Plan, store: RecordStore, log: EventLog, progress: StageProgress
    ) -> int:
        """Do the jobs of a plan with retries; returns how many ended in quarantine."""
        allowed = math.floor(self.settings.error_budget * (plan.done + len(plan.jobs)))
        failed = 0
        for job, record, error in self._attempts(stage, plan.jobs, log, progress.hear):
            if error is None:
                progress.advance(job.unit.name, record.rows_in, record.rows_out, record.drops)
                progress.bytes_lost += int(record.stats.get("bytes_lost", 0))
                log.emit(
                    "unit_done",
                    stage=stage.name,
                    unit=job.unit.name,
                    rows_in=record.rows_in,
                    rows_out=record.rows_out,
                    drops=record.drops,
                    seconds=round(record.seconds, 3),
                )
                continue
            failed += 1
            progress.fail(job.unit.name)
            with contextlib.suppress(OSError):  # the disk may be what failed
                store.write(_failure(stage, job, error))
            log.emit("unit_quarantined", stage=stage.name, unit=job.unit.name, error=_words(error))
            self.console.print(
                f"[red]✗[/] {stage.name} {job.unit.name}: {escaped(_words(error))}", highlight=False
            )
            if failed > allowed:
                raise BudgetExceededError(
                    f"{stage.name}: {counted(failed, 'unit')} failed, more than the error budget of "
                    f"{allowed} (run.error_budget {self.settings.error_budget} of "
                    f"{plan.done + len(plan.jobs)}). "
                    f"Last: {job.unit.name}: {_words(error)}. What was committed is kept; rerun to go on"
                )
        return failed

    def _attempts(
        self, stage: Stage, jobs: list[Job], log: EventLog, hear: Send
    ) -> Iterator[tuple[Job, Record, BaseException | None]]:
        """Every job once, after as many tries as it took."""
        pool = SynchronousPool() if stage.inline else self._shared_pool()
        left = jobs
        for attempt in range(self.settings.retries + 1):
            again: list[Job] = []
            for job, record, error in pool.run(run_unit, (stage, self.workspace), left, stage.gpu, hear):
                if isinstance(error, UserError) and not isinstance(error, DataError):
                    raise error
                if error is None or attempt == self.settings.retries:
                    yield job, record, error
                else:
                    log.emit("unit_retried", stage=stage.name, unit=job.unit.name, error=_words(error))
                    again.append(job)
            left = again
            if not left:
                return

    def _shared_pool(self) -> Pool:
        if self._pool is None:
            self._pool = start_pool(self.settings)
        return self._pool


def run_unit(stage: Stage, workspace: Workspace, job: Job, send: Send | None = None) -> Record:
    """Do one unit, with its partners' if there are any, and commit each.

    Runs in a worker; also what a debugger would call.

    Args:
        send: takes the reports of the unit while it runs.

    Returns:
        The record of the stage's own unit.
    """
    with reporting(stage.name, job.unit.name, send):
        return _run_unit(stage, workspace, job)


def _run_unit(stage: Stage, workspace: Workspace, job: Job) -> Record:
    if not job.partners:
        started = time.perf_counter()
        return _commit(stage, workspace, job, stage.run(workspace, job.unit), started)
    parts = [(stage, job), *job.partners]
    started = time.perf_counter()
    try:
        outcomes = list(stage.run_together(workspace, [(s, j.unit) for s, j in parts]))
    except Exception as error:  # whoever's fault it was, it comes out when each runs alone
        if isinstance(error, UserError) and not isinstance(error, DataError):
            raise
        return _run_unit(stage, workspace, replace(job, partners=()))
    records = []
    for (member, its_job), outcome in zip(parts, outcomes, strict=True):
        records.append(_commit(member, workspace, its_job, outcome, started))
        started = time.perf_counter()
    return records[0]


def _commit(stage: Stage, workspace: Workspace, job: Job, outcome: Outcome, started: float) -> Record:
    lost = outcome.rows_in - outcome.rows_out - sum(outcome.drops.values())
    if lost:
        raise DataError(f"{stage.name} {job.unit.name}: {lost} rows are unaccounted for; this is a bug")
    record = Record(
        stage=stage.name,
        unit=job.unit.name,
        key=job.key,
        settings=dict(stage.settings),
        code_version=stage.code_version,
        inputs_digest=inputs_digest(job.unit.inputs),
        inputs=list(job.unit.inputs[:INPUTS_KEPT]),
        outputs=list(outcome.outputs),
        rows_in=outcome.rows_in,
        rows_out=outcome.rows_out,
        drops=dict(sorted(outcome.drops.items())),
        stats=dict(outcome.stats),
        seconds=time.perf_counter() - started,
        finished=utc_now(),
        version=__version__,
    )
    RecordStore(workspace).write(record)
    return record


def _failure(stage: Stage, job: Job, error: BaseException) -> Record:
    return Record(
        stage=stage.name,
        unit=job.unit.name,
        key=job.key,
        settings=dict(stage.settings),
        code_version=stage.code_version,
        inputs_digest=inputs_digest(job.unit.inputs),
        inputs=list(job.unit.inputs[:INPUTS_KEPT]),
        outputs=[],
        rows_in=0,
        rows_out=0,
        drops={},
        finished=utc_now(),
        version=__version__,
        failed=True,
        error=_words(error),
    )


def _words(error: BaseException) -> str:
    if isinstance(error, DataError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _short(why: str) -> str:
    """The whole of it is in the log of the run."""
    return why if len(why) <= WHY_SHOWN else f"{why[: WHY_SHOWN - 1]}…"


def _quarantine_text(quarantined: dict[str, int]) -> str:
    parts = ", ".join(f"{stage}: {counted(n, 'unit')}" for stage, n in quarantined.items())
    return f"quarantined after all retries: {parts}. Everything else is done; a rerun tries them again"
