"""Conditions on a row, and what another experiment kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset.selections import SELECTED, Selection
from curate.rules.kinds import Compiled, Judging, Learned, Rows, RuleFiles, Verdict
from curate.rules.logic import Truth, truth_of


class Where(Compiled):
    """A condition on the row."""

    kind = "where"

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """Pass and fail as SQL says; NULL is missing."""
        return Judging(lambda rows: Verdict(truth_of(rows.values[0])))


@dataclass(frozen=True, kw_only=True)
class Other(Compiled):
    """What another experiment kept."""

    experiment: str

    kind = "experiment"
    portable = False

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """What is selected passes, as often as it is there; nothing is ever missing."""
        selection = _Selection(self.experiment, files)
        return Judging(selection.judge)


class _Selection:
    def __init__(self, experiment: str, files: RuleFiles) -> None:
        self.experiment, self.workspace = experiment, files.workspace
        self.selection: Selection | None = None

    def judge(self, rows: Rows) -> Verdict:
        self.selection = self.selection or Selection(self.workspace, self.experiment)
        selected = pa.concat_tables([SELECTED, *(self.selection.read(shard) for shard in rows.shards)])
        kept = np.asarray(pc.is_in(rows.uids, selected["uid"].combine_chunks())).astype(bool)
        repeats = np.ones(len(rows), np.int64)
        if kept.any():
            places = pc.index_in(rows.uids.filter(pa.array(kept)), selected["uid"].combine_chunks())
            repeats[kept] = np.asarray(selected["repeats"].take(places))
        return Verdict(Truth(kept, ~kept), repeats)
