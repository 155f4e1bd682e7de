"""Judging a pool by an experiment, shard by shard."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.errors import UserError
from curate.rules.contract import BoundRule, CompiledRule, Learned, Rows, RuleFiles, Verdict
from curate.rules.logic import Copies, Mask, Truth, copies, in_scope
from curate.rules.program import Program
from curate.rules.sql.expressions import evaluate
from curate.samples.database import Database, is_out_of_room, one_line, sql_error
from curate.samples.pool import Batch, Pool, prefetch


@dataclass(frozen=True)
class Judged:
    """Verdicts on one shard, or on all of a batch.

    Attributes:
        shard: its name, or that of the first.
        samples: uid and the columns that were read.
        verdicts: rule name → verdict; a row that is not in its scope has none from it.
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
        self._ready: dict[str, BoundRule] = {}
        with ExitStack() as stack:
            for number, rule in enumerate(program.rules):
                if only is None or rule.name in only:
                    files = RuleFiles(pool.workspace, program.name, number)
                    ready = rule.bind(learned[rule.name], files)
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
        found = self.verdicts(batch)
        verdicts = {name: verdict.truth for name, verdict in found.items()}
        repeats = {name: v.repeats for name, v in found.items() if v.repeats is not None}
        rows = batch.table.num_rows
        copied = copies(self.program.keep, verdicts, repeats, rows) if repeats else None
        listed = {name: verdict.listed for name, verdict in found.items()}
        return Judged(batch.shards[0][0], batch.table, verdicts, listed, copied)

    def truths(self, batch: Batch) -> dict[str, Truth]:
        """Rule name → verdict on all rows of a batch."""
        return {name: verdict.truth for name, verdict in self.verdicts(batch).items()}

    def verdicts(self, batch: Batch) -> dict[str, Verdict]:
        """Rule name → all that it says about the rows of a batch."""
        values = self._evaluate(batch)
        uids = batch.table["uid"]
        shared: dict[Hashable, Any] = {}
        found = {}
        for rule in self.rules:
            mine = [values[e.sql] for e in rule.expressions[: rule.judged]]
            found[rule.name] = self._ready[rule.name].judge(Rows(mine, uids, shared))
        return self._in_scope(found, batch.table.num_rows)

    def _in_scope(self, found: dict[str, Verdict], rows: int) -> dict[str, Verdict]:
        """Verdicts without those on rows that are not in the scope of a rule."""
        truths = {name: verdict.truth for name, verdict in found.items()}
        scopes: dict[str, Mask] = {}
        for name, scope in self.program.scopes.items():
            if name in found:
                key = repr(scope)
                if key not in scopes:
                    scopes[key] = in_scope(scope, truths, rows)
                left = scopes[key]
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
                    raise failed(rule, batch.shards[0][0], batch.shards[-1][0], error) from None
            raise


def failed(rule: CompiledRule, first: str, last: str, error: Exception) -> Exception:
    """What to raise when an expression of a rule failed on a row between two shards."""
    if is_out_of_room(error):
        return error
    shards = f"shard {first}" if first == last else f"shards {first} to {last}"
    return UserError(
        f"{rule.place}: fails on a row of {shards}: {one_line(error)}. "
        "TRY(…) and TRY_CAST(… AS …) give NULL instead"
    )
