"""An experiment on a pool: check its rules, learn what they need to know, judge shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from curate.config.filters import Experiment, Keep
from curate.dataset.samples import Column
from curate.dataset.workspace import FileRef
from curate.errors import UserError
from curate.reasons import FilterReason
from curate.rules.database import one_line, select
from curate.rules.expressions import Checker
from curate.rules.kinds import Compiled, Learned, Learner, Lookup, Rows, RuleFiles, compile_rule
from curate.rules.logic import Truth
from curate.rules.pool import Batch, Pool, place_of


@dataclass(frozen=True)
class Program:
    """A checked experiment."""

    name: str
    rules: tuple[Compiled, ...]
    keep: Keep

    def columns(self, learning: bool = False) -> list[str]:
        """Columns that judging reads, or those that learning reads; sorted."""
        if learning:
            return sorted(set().union(*(r.columns for r in self.rules if r.learns)))
        judged = (e for r in self.rules for e in r.expressions[: r.judged])
        return sorted({c for e in judged for c in e.columns})

    def all_columns(self) -> list[str]:
        """Every column that any rule reads, sorted."""
        return sorted(set().union(*(r.columns for r in self.rules)))

    @property
    def learns(self) -> bool:
        """Whether any rule has to see the whole pool first."""
        return any(r.learns for r in self.rules)


def compile_experiment(
    name: str, experiment: Experiment, columns: dict[str, Column], connection: duckdb.DuckDBPyConnection
) -> Program:
    """Check every rule of an experiment against the columns of a pool.

    Raises:
        UserError: a rule cannot be used; names the rule and the fix.
    """
    checker = Checker(connection, columns)
    rules = []
    for rule_name, rule in experiment.rules.items():
        place = f"filter.experiments.{name}.rules.{rule_name}"
        if rule_name in set(FilterReason):
            raise UserError(f"{place}: '{rule_name}' is a reason of its own; give the rule another name")
        rules.append(compile_rule(rule_name, rule, checker, place))
    program = Program(name, tuple(rules), experiment.combination())
    _refuse_twins(program)
    return program


def _refuse_twins(program: Program) -> None:
    seen: dict[str, str] = {}
    for column in program.all_columns():
        twin = seen.setdefault(column.lower(), column)
        if twin != column:
            raise UserError(
                f"filter.experiments.{program.name}: columns '{twin}' and '{column}' differ in case only, "
                "which SQL does not see; drop one of them at ingest"
            )


def learn(
    program: Program, pool: Pool, connection: duckdb.DuckDBPyConnection, scratch: Path
) -> tuple[dict[str, Learned], list[FileRef]]:
    """One pass over the columns of the rules that look at the whole pool.

    Memory: one batch, DuckDB's limit, a number per shard. Scratch disk: 8 bytes a row for every
    ``top``, keys and uid of every row for every ``dedup``.

    Returns:
        Rule name → what it learned, and the files that were written for it.
    """
    learners: list[tuple[Compiled, Learner]] = []
    for number, rule in enumerate(program.rules):
        if rule.learns:
            files = RuleFiles(pool.workspace, program.name, number)
            learners.append((rule, rule.learner(connection, scratch, files)))
    if not learners:
        return {rule.name: {} for rule in program.rules}, []
    lengths: dict[str, int] = {}
    for batch in pool.scan(program.columns(learning=True)):
        lengths |= dict(batch.shards)
        for rule, learner in learners:
            try:
                learner.add(batch.table)
            except duckdb.Error as error:
                raise _failed(rule, batch.shards[0][0], batch.shards[-1][0], error) from None

    def uid_at(position: int) -> str:
        shard, row = place_of(position, lengths)
        return str(pool.read(shard, [])["uid"][row].as_py())

    learned: dict[str, Learned] = {rule.name: {} for rule in program.rules}
    written: list[FileRef] = []
    for rule, learner in learners:
        learned[rule.name], refs = learner.finish(uid_at)
        written += refs
    return learned, written


@dataclass(frozen=True)
class Judged:
    """Verdicts on one shard.

    Attributes:
        samples: uid and the columns that were read.
        verdicts: rule name → verdict.
        listed: rule name → what the rule's own file says about these uids.
    """

    shard: str
    samples: pa.Table
    verdicts: dict[str, Truth]
    listed: dict[str, pa.Table | None]


class Judge:
    """Applies a program, with what it learned, to shards."""

    def __init__(
        self,
        program: Program,
        pool: Pool,
        learned: Mapping[str, Learned],
        connection: duckdb.DuckDBPyConnection,
    ) -> None:
        self.program, self.pool, self.learned, self.connection = program, pool, learned, connection
        self._stack = ExitStack()
        self._lookups: dict[str, Lookup] = {}
        for number, rule in enumerate(program.rules):
            files = RuleFiles(pool.workspace, program.name, number)
            lookup = rule.lookup(pool.workspace, learned[rule.name], files)
            if lookup is not None:
                self._lookups[rule.name] = self._stack.enter_context(closing(lookup))

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()

    def all_shards(self) -> Iterator[Judged]:
        """Every shard of the pool, in order."""
        for batch in self.pool.scan(self.program.columns()):
            yield from self.batch(batch)

    def batch(self, batch: Batch) -> Iterator[Judged]:
        """Judge shards, or parts of shards, with one query."""
        values = self._evaluate(batch)
        for shard, rows in batch.slices():
            yield self._one(shard, batch.table[rows], [column[rows] for column in values.columns])

    def _one(self, shard: str, samples: pa.Table, evaluated: list[pa.ChunkedArray]) -> Judged:
        values = iter(evaluated)
        verdicts, listed = {}, {}
        for rule in self.program.rules:
            mine = [next(values) for _ in range(rule.judged)]
            lookup = self._lookups.get(rule.name)
            found = lookup.among(shard, samples["uid"]) if lookup else None
            among = None if found is None else found["uid"].combine_chunks()
            rows = Rows(mine, samples["uid"], among)
            verdicts[rule.name] = rule.judge(rows, self.learned[rule.name])
            listed[rule.name] = found
        return Judged(shard, samples, verdicts, listed)

    def _evaluate(self, batch: Batch) -> pa.Table:
        wanted = [(rule, e.sql) for rule in self.program.rules for e in rule.expressions[: rule.judged]]
        if not wanted:
            return pa.table({})
        try:
            return select(self.connection, batch.table, [sql for _, sql in wanted])
        except duckdb.Error:
            for rule, sql in wanted:
                try:
                    select(self.connection, batch.table, [sql])
                except duckdb.Error as error:
                    raise _failed(rule, batch.shards[0][0], batch.shards[-1][0], error) from None
            raise


def _failed(rule: Compiled, first: str, last: str, error: duckdb.Error) -> Exception:
    if isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException)):
        return error
    shards = f"shard {first}" if first == last else f"shards {first} to {last}"
    return UserError(
        f"{rule.place}: fails on a row of {shards}: {one_line(error)}. "
        "TRY(…) and TRY_CAST(… AS …) give NULL instead"
    )
