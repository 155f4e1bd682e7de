"""Why every sample of a shard is in or out: the filter's own judgement, replayed from what it learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset.selections import Selection
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.pages.words import is_unsafe
from curate.reasons import FilterReason
from curate.rules.account.run import read_run
from curate.rules.cuts import Cut
from curate.rules.judging import Judge
from curate.rules.logic import Truth, combine, conjuncts
from curate.rules.program import Program, compile_experiment
from curate.samples.columns import Column
from curate.samples.database import open_database
from curate.samples.pool import Pool

Mask = npt.NDArray[np.bool_]
NOT_SELECTED, MISSING = FilterReason.NOT_SELECTED.value, FilterReason.MISSING_SCORE.value
KEPT = 0


class RuleCut(NamedTuple):
    """Where a rule cuts a column, at a number that is known."""

    rule: str
    cut: Cut

    @property
    def value(self) -> float:
        """At which it cuts."""
        assert self.cut.value is not None
        return self.cut.value


@dataclass(frozen=True)
class JudgedShard:
    """The samples of a shard with what became of them.

    Attributes:
        samples: ``uid`` and the columns asked for.
        reason: int64, shape (n,): 0 for kept, otherwise the place of the reason in ``reasons``.
        unsafe: bool, shape (n,): did not pass a rule about unsafe pictures.
    """

    shard: str
    samples: pa.Table
    reason: npt.NDArray[np.int64]
    unsafe: Mask


class Replay:
    """Sorts the samples of an experiment by the reason for which they are in or out.

    Which samples are kept is what the selection says. For why a sample is not, the rules are judged
    again from ``learned.json``; without that (a selection made elsewhere) the reason is
    ``not_selected`` for all. Holds a few shards.
    """

    def __init__(self, workspace: Workspace, experiment: str, columns: dict[str, Column]) -> None:
        self.workspace, self.experiment = workspace, experiment
        self.run = read_run(workspace, experiment)
        self.pool = Pool(workspace, (), columns)
        self._selection = Selection(workspace, experiment)
        self.program: Program | None = None
        self.reasons: list[str] = ["kept", NOT_SELECTED]
        self.cuts: list[RuleCut] = []
        """Where the rules cut columns; empty where they cannot be judged again."""
        self._stack = ExitStack()
        self._judge: Judge | None = None

    def __enter__(self) -> Replay:
        if self.run is None:
            return self
        scratch = self._stack.enter_context(self.workspace.scratch())
        connection = self._stack.enter_context(open_database(scratch))
        try:
            program = compile_experiment(self.experiment, self.run.as_config(), self.pool.columns, connection)
            judge = self._stack.enter_context(Judge(program, self.pool, self.run.rules, connection))
        except UserError:
            # Columns or files have changed since: the selection still stands, its reasons do not.
            return self
        self.program, self._judge = program, judge
        self.cuts = [
            RuleCut(rule.name, cut)
            for rule in program.rules
            for cut in rule.cuts(self.run.rules[rule.name])
            if cut.value is not None and np.isfinite(cut.value)
        ]
        names = [part for part in conjuncts(program.keep) if isinstance(part, str)]
        self.reasons = list(dict.fromkeys(["kept", *names, MISSING, NOT_SELECTED]))
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()

    def shards(self, shards: Sequence[str], names: Sequence[str]) -> Iterator[JudgedShard]:
        """The given shards, in order, with the given columns."""
        judged_columns = self.program.columns() if self.program else []
        wanted = list(dict.fromkeys([*names, *judged_columns]))
        pool = Pool(self.workspace, tuple(shards), self.pool.columns)
        for batch in pool.scan(wanted):
            if self._judge is not None:
                for judged in self._judge.batch(batch):
                    yield self._judged(judged.shard, judged.samples, judged.verdicts)
            else:
                for shard, rows in batch.slices():
                    yield self._judged(shard, batch.table[rows], {})

    def _judged(self, shard: str, samples: pa.Table, verdicts: Mapping[str, Truth]) -> JudgedShard:
        selection = self._selection.read(shard)
        kept = np.asarray(pc.is_in(samples["uid"], selection["uid"].combine_chunks())).astype(bool)
        reason = np.where(kept, KEPT, self._why(verdicts, len(kept)))
        return JudgedShard(shard, samples, reason, self._unsafe(verdicts, len(kept)))

    def _why(self, verdicts: Mapping[str, Truth], rows: int) -> npt.NDArray[np.int64]:
        """The reason of every row, as if none were kept."""
        why = np.full(rows, self.reasons.index(NOT_SELECTED), np.int64)
        if not verdicts or self.program is None:
            return why
        left = np.ones(rows, bool)
        for part in conjuncts(self.program.keep):
            truth = combine(part, verdicts)
            fallen = left & ~truth.passed
            why[fallen] = self.reasons.index(part if isinstance(part, str) else NOT_SELECTED)
            why[fallen & truth.missing] = self.reasons.index(MISSING)
            left &= truth.passed
        return why

    def _unsafe(self, verdicts: Mapping[str, Truth], rows: int) -> Mask:
        unsafe = np.zeros(rows, bool)
        if verdicts and self.program is not None:
            for rule in self.program.rules:
                if any(map(is_unsafe, (rule.name, *rule.columns))):
                    unsafe |= ~verdicts[rule.name].passed
        return unsafe
