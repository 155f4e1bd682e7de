"""Conditions on a row, and what another experiment kept."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from curate.dataset.selections import Selection
from curate.rules.kinds import Compiled, Judging, Learned, Rows, RuleFiles, Verdict
from curate.rules.logic import Truth, truth_of
from curate.samples.pool import Uids


class Where(Compiled):
    """A condition on the row."""

    kind = "where"
    any_order = True
    judges_uids = Uids.RAW

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
        stack = ExitStack()
        selected = stack.enter_context(Selection(files.workspace, self.experiment).mapped())

        def judge(rows: Rows) -> Verdict:
            if not len(rows):
                return Verdict(Truth(np.zeros(0, bool), np.zeros(0, bool)))
            mine = selected(rows.uids[0].as_py(), rows.uids[-1].as_py())
            places = pc.index_in(rows.uids.combine_chunks(), mine["uid"].combine_chunks())
            kept = np.asarray(places.is_valid())
            repeats = np.ones(len(rows), np.int64)
            repeats[kept] = np.asarray(mine["repeats"])[np.asarray(places.drop_null())]
            return Verdict(Truth(kept, ~kept), repeats)

        return Judging(judge, stack.close)
