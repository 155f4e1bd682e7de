"""An experiment on a pool: check its rules, learn what they need to know, judge shard by shard."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.config.filters import Experiment, Keep, rule_names, scopes
from curate.dataset.workspace import FileRef
from curate.errors import UserError
from curate.reasons import FilterReason
from curate.rules.compiling import compile_rule
from curate.rules.expressions import Checker, evaluate
from curate.rules.kinds import Compiled, Judging, Learned, Learner, Rows, RuleFiles, Verdict
from curate.rules.logic import Copies, Mask, Truth, copies, reached
from curate.samples.columns import Column
from curate.samples.database import Database, is_out_of_room, one_line, sql_error
from curate.samples.pool import Batch, Pool, UidAt, Uids, prefetch


@dataclass(frozen=True)
class Program:
    """A checked experiment.

    Attributes:
        scopes: what a row has to pass before a rule looks at it; rules that look at the whole pool are
            not in it.
    """

    name: str
    rules: tuple[Compiled, ...]
    keep: Keep
    scopes: Mapping[str, tuple[Keep, ...]]

    def columns(self, rules: Collection[str] | None = None) -> list[str]:
        """Columns that judging reads, of all rules or of some; sorted."""
        judged = (
            e for r in self.rules if rules is None or r.name in rules for e in r.expressions[: r.judged]
        )
        return sorted({c for e in judged for c in e.columns})

    def uids(self, rules: Collection[str] | None = None) -> Uids:
        """The form of uids that judging needs, by all rules or by some."""
        return max((r.judges_uids for r in self.rules if rules is None or r.name in rules), default=Uids.RAW)

    def all_columns(self) -> list[str]:
        """Every column that any rule reads, sorted."""
        return sorted(set().union(*(r.columns for r in self.rules)))

    def vectors(self) -> list[tuple[str, str]]:
        """Alias and modality of all stored embeddings that rules read, sorted."""
        return sorted({v for r in self.rules for v in r.vectors})

    @property
    def any_order(self) -> bool:
        """Whether rows may come in any order."""
        return all(r.any_order for r in self.rules)

    @property
    def learns(self) -> bool:
        """Whether any rule has to see other rows first."""
        return any(r.learns for r in self.rules)

    def passes(self, given: Collection[str] = ()) -> list[list[Compiled]]:
        """The rules that learn, in the order of the passes over the pool that they need.

        A rule behind a rule that learns has to wait for it: it learns in the next pass. So do rules that
        hold the rows in memory, for each other.

        Args:
            given: rules that know already; nobody waits for them.
        """
        learning = {r.name: r for r in self.rules if r.learns and r.name not in given}
        level: dict[str, int] = {}

        def level_of(name: str) -> int:
            if name not in level:
                before = {n for part in self.scopes.get(name, ()) for n in rule_names(part)}
                level[name] = max((level_of(n) + 1 for n in before if n in learning), default=0)
            return level[name]

        found: list[list[Compiled]] = []
        for name, rule in learning.items():
            found += [[] for _ in range(level_of(name) + 1 - len(found))]
            found[level_of(name)].append(rule)
        return [rules for level in found for rules in _parted(level)]


def _parted(rules: Sequence[Compiled]) -> Iterator[list[Compiled]]:
    """Passes in which no two rules hold the rows in memory; the first one does all the rest as well."""
    later = [r for r in rules if r.holds_rows][1:]
    names = {r.name for r in later}
    yield [r for r in rules if r.name not in names]
    yield from ([r] for r in later)


def compile_experiment(
    name: str, experiment: Experiment, columns: dict[str, Column], connection: Database
) -> Program:
    """Check every rule of an experiment against the columns of a pool.

    Raises:
        UserError: a rule cannot be used; names the rule and the fix.
    """
    return compile_checked(name, experiment, Checker(connection, columns), f"filter.experiments.{name}")


def compile_checked(name: str, experiment: Experiment, checker: Checker, place: str) -> Program:
    """The same for an experiment at any place of a config, which begins every message."""
    rules = []
    for rule_name, rule in experiment.rules.items():
        at = f"{place}.rules.{rule_name}"
        if rule_name in set(FilterReason):
            raise UserError(f"{at}: '{rule_name}' is a reason of its own; give the rule another name")
        rules.append(compile_rule(rule_name, rule, checker, at))
    keep = experiment.combination()
    program = Program(name, tuple(rules), keep, _scopes(place, keep, rules))
    refuse_twins(program.all_columns(), place)
    return program


def _scopes(place: str, keep: Keep, rules: list[Compiled]) -> dict[str, tuple[Keep, ...]]:
    """The scope of every rule that learns inside a ``then``: it can have but one."""
    learning = {r.name for r in rules if r.learns}
    found: dict[str, tuple[Keep, ...]] = {}
    for rule, scope in scopes(keep):
        if rule in learning and found.setdefault(rule, scope) != scope:
            raise UserError(
                f"{place}.keep: '{rule}' looks at the rows that reach it and stands in two "
                "places that other rows reach; write the rule twice, under two names"
            )
    return {rule: scope for rule, scope in found.items() if scope}


def refuse_twins(columns: Iterable[str], place: str) -> None:
    """Raises UserError when SQL would take two columns for one."""
    seen: dict[str, str] = {}
    for column in columns:
        twin = seen.setdefault(column.lower(), column)
        if twin != column:
            raise UserError(
                f"{place}: columns '{twin}' and '{column}' differ in case only, "
                "which SQL does not see; drop one of them at ingest"
            )


def learn(
    program: Program,
    pool: Pool,
    connection: Database,
    scratch: Path,
    given: Mapping[str, Learned] | None = None,
) -> tuple[dict[str, Learned], list[FileRef]]:
    """Let the rules that look at other rows see them: one pass over their columns, or several with ``then``.

    Memory and scratch disk: what each kind of rule says, one batch, a number per shard.

    Args:
        given: what some rules learned elsewhere, its files already in place. They do not learn here.

    Returns:
        Rule name → what it learned, and the files that were written here for it.
    """
    given = given or {}
    learned: dict[str, Learned] = {rule.name: given.get(rule.name, {}) for rule in program.rules}
    written: list[FileRef] = []
    for rule in program.rules if program.learns else ():
        rule.check_files()
    for rules in program.passes(given):
        written += _one_pass(program, rules, pool, learned, connection, scratch)
    return learned, written


def _one_pass(
    program: Program,
    rules: Sequence[Compiled],
    pool: Pool,
    learned: dict[str, Learned],
    connection: Database,
    scratch: Path,
) -> list[FileRef]:
    numbers = {rule.name: number for number, rule in enumerate(program.rules)}
    looks: list[tuple[tuple[Keep, ...], list[tuple[Compiled, Learner]]]] = []
    for rule in rules:
        scope = program.scopes.get(rule.name, ())
        mine = next((learners for other, learners in looks if other == scope), None)
        if mine is None:
            mine = []
            looks.append((scope, mine))
        if not any(learner.joins(rule) for _, learner in mine):
            files = RuleFiles(pool.workspace, program.name, numbers[rule.name])
            mine.append((rule, rule.learner(connection, scratch, files)))
    before = {name for scope, _ in looks for part in scope for name in rule_names(part)}
    columns = sorted(set(program.columns(before)).union(*(r.columns for r in rules)))
    uids = max(rule.learns_uids for rule in rules)
    if before:
        uids = max(uids, program.uids(before))
    lengths: dict[str, int] = {}
    with Judge(program, pool, learned, connection, before) as judge:
        for batch in pool.scan(columns, uids=uids):
            lengths |= dict(batch.shards)
            verdicts = judge.verdicts(batch) if before else {}
            for scope, learners in looks:
                left = reached(scope, verdicts, batch.table.num_rows) if scope else None
                for rule, learner in learners:
                    try:
                        learner.add(batch, left)
                    except sql_error() as error:
                        raise _failed(rule, batch.shards[0][0], batch.shards[-1][0], error) from None

    uid_at = UidAt(pool, lengths)
    written: list[FileRef] = []
    for rule, learner in (each for _, learners in looks for each in learners):
        learned[rule.name], refs = learner.finish(uid_at)
        learned.update(learner.joined(uid_at))
        written += refs
    return written


@dataclass(frozen=True)
class Judged:
    """Verdicts on one shard, or on all of a batch.

    Attributes:
        shard: its name, or that of the first.
        samples: uid and the columns that were read.
        verdicts: rule name → verdict; a row that does not reach a rule has none from it.
        listed: rule name → what the rule's own file says about these uids.
        copies: how often each row is there if it is kept, int64, shape (n,); None: each once.
    """

    shard: str
    samples: pa.Table
    verdicts: dict[str, Truth]
    listed: dict[str, pa.Table | None]
    copies: Copies | None

    def repeats(self, kept: Mask) -> npt.NDArray[np.int32]:
        """The repeats of the kept rows, shape (kept,), where rows have any."""
        assert self.copies is not None
        repeats = self.copies[kept]
        if repeats.max(initial=0) > np.iinfo(np.int32).max:
            raise UserError(f"shard {self.shard}: samplers one on top of the other repeat a row too often")
        return repeats.astype(np.int32)


class Judge:
    """Applies a program, with what it learned, to shards.

    Args:
        only: judge these rules; default: all.
    """

    def __init__(
        self,
        program: Program,
        pool: Pool,
        learned: Mapping[str, Learned],
        connection: Database,
        only: Collection[str] | None = None,
    ) -> None:
        self.program, self.pool, self.learned, self.connection = program, pool, learned, connection
        self.rules = [r for r in program.rules if only is None or r.name in only]
        self._stack = ExitStack()
        self._ready: dict[str, Judging] = {}
        with ExitStack() as stack:
            for number, rule in enumerate(program.rules):
                if only is None or rule.name in only:
                    files = RuleFiles(pool.workspace, program.name, number)
                    ready = rule.opened(learned[rule.name], files)
                    stack.callback(ready.close)
                    self._ready[rule.name] = ready
            self._stack = stack.pop_all()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()

    def all_batches(self, also: Collection[str] = ()) -> Iterator[tuple[Batch, Judged]]:
        """Every batch of the pool, in order, with the verdicts on all of its rows; uids in any form.

        While one is looked at, a thread judges the next; nobody else may use the connection meanwhile.

        Args:
            also: columns that a batch has beside those that are judged.
        """
        batches = self.pool.scan(sorted({*self.program.columns(), *also}), self.program.uids())
        return prefetch((batch, self.judged(batch)) for batch in batches)

    def all_shards(self) -> Iterator[Judged]:
        """Every shard of the pool, in order."""
        for batch in self.pool.scan(self.program.columns()):
            yield from self.batch(batch)

    def batch(self, batch: Batch) -> Iterator[Judged]:
        """Judge shards, or parts of shards, with one query; a result for each."""
        judged = self.judged(batch)
        for shard, rows in batch.slices():
            verdicts = {n: Truth(t.passed[rows], t.failed[rows]) for n, t in judged.verdicts.items()}
            times = None if judged.copies is None else judged.copies[rows]
            yield Judged(shard, batch.table[rows], verdicts, judged.listed, times)

    def judged(self, batch: Batch) -> Judged:
        """Judge all rows of a batch."""
        found = self.found(batch)
        verdicts = {name: verdict.truth for name, verdict in found.items()}
        repeats = {name: v.repeats for name, v in found.items() if v.repeats is not None}
        rows = batch.table.num_rows
        copied = copies(self.program.keep, verdicts, repeats, rows) if repeats else None
        listed = {name: verdict.listed for name, verdict in found.items()}
        return Judged(batch.shards[0][0], batch.table, verdicts, listed, copied)

    def verdicts(self, batch: Batch) -> dict[str, Truth]:
        """Rule name → verdict on all rows of a batch."""
        return {name: verdict.truth for name, verdict in self.found(batch).items()}

    def found(self, batch: Batch) -> dict[str, Verdict]:
        """Rule name → all that it says about the rows of a batch."""
        values = self._evaluate(batch)
        uids = batch.table["uid"]
        shared: dict[Hashable, Any] = {}
        found = {}
        for rule in self.rules:
            mine = [values[e.sql] for e in rule.expressions[: rule.judged]]
            found[rule.name] = self._ready[rule.name].judge(Rows(mine, uids, shared))
        return self._asked(found, batch.table.num_rows)

    def _asked(self, found: dict[str, Verdict], rows: int) -> dict[str, Verdict]:
        """Without the verdicts on rows that do not reach a rule."""
        truths = {name: verdict.truth for name, verdict in found.items()}
        lefts: dict[str, Mask] = {}
        for name, scope in self.program.scopes.items():
            if name in found:
                key = repr(scope)
                left = lefts[key] if key in lefts else lefts.setdefault(key, reached(scope, truths, rows))
                truth = Truth(truths[name].passed & left, truths[name].failed & left)
                found[name] = replace(found[name], truth=truth)
        return found

    def _evaluate(self, batch: Batch) -> dict[str, pa.ChunkedArray]:
        """SQL → its values on all rows: rules that ask for the same get the same."""
        wanted = [(e, rule) for rule in self.rules for e in rule.expressions[: rule.judged]]
        try:
            return evaluate(self.connection, batch.table, [expression for expression, _ in wanted])
        except sql_error():
            for expression, rule in wanted:
                try:
                    evaluate(self.connection, batch.table, [expression])
                except sql_error() as error:
                    raise _failed(rule, batch.shards[0][0], batch.shards[-1][0], error) from None
            raise


def _failed(rule: Compiled, first: str, last: str, error: Exception) -> Exception:
    if is_out_of_room(error):
        return error
    shards = f"shard {first}" if first == last else f"shards {first} to {last}"
    return UserError(
        f"{rule.place}: fails on a row of {shards}: {one_line(error)}. "
        "TRY(…) and TRY_CAST(… AS …) give NULL instead"
    )
