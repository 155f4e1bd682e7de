"""The rule ``experiment``: what another experiment kept."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from curate.config.rules.experiment import ExperimentRule
from curate.dataset.selections import Selection
from curate.rules.contract import BoundRule, CompiledRule, Compiling, Learned, Rows, RuleFiles, Verdict
from curate.rules.logic import Truth


@dataclass(frozen=True)
class OtherExperiment(CompiledRule):
    """What is selected passes, as often as it is there; nothing is ever missing."""

    settings: ExperimentRule

    @classmethod
    def compile(cls, settings: ExperimentRule, at: Compiling) -> OtherExperiment:
        """See ``CompiledRule.compile``."""
        return cls(at.name, at.place, settings, f"kept by {settings.experiment}", (), 0)

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """The subset file is mapped."""
        stack = ExitStack()
        selected = stack.enter_context(Selection(files.workspace, self.settings.experiment).mapped())

        def judge(rows: Rows) -> Verdict:
            if not len(rows):
                return Verdict(Truth(np.zeros(0, bool), np.zeros(0, bool)))
            mine = selected(rows.uids[0].as_py(), rows.uids[-1].as_py())
            places = pc.index_in(rows.uids.combine_chunks(), mine["uid"].combine_chunks())
            kept = np.asarray(places.is_valid())
            repeats = np.ones(len(rows), np.int64)
            repeats[kept] = np.asarray(mine["repeats"])[np.asarray(places.drop_null())]
            return Verdict(Truth(kept, ~kept), repeats)

        return BoundRule(judge, stack.close)
