"""The rule ``near``: one row of those whose perceptual hashes differ in few bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.config.rules.near import NearRule
from curate.dataset.workspace import FileRef
from curate.errors import UserError
from curate.rules.algorithms.hamming import Hashes, survivors
from curate.rules.algorithms.spool import Floats
from curate.rules.contract import Compiling, Learner, RuleFiles, rows_in_scope
from curate.rules.logic import Mask
from curate.rules.losers import SCHEMA, STEM, Dropping, losers_of
from curate.rules.preference import Preference, preference
from curate.rules.uidfiles import UidSpool, write_uid_file
from curate.samples.database import Database, select
from curate.samples.pool import Batch, UidAt

HASHES = ("UBIGINT", "BIGINT")


@dataclass(frozen=True)
class Near(Dropping):
    """From the best row to the worst, each stays unless it is near to one that stays. See ``survivors``.

    A row without a hash has no duplicates and passes.
    """

    settings: NearRule
    prefer: Preference

    holds_rows = True

    @classmethod
    def compile(cls, settings: NearRule, at: Compiling) -> Near:
        """See ``CompiledRule.compile``."""
        hashes = at.key(settings.near)
        if hashes.type not in HASHES:
            raise UserError(f"{at.place}: '{settings.near}' is {hashes.type}, not a 64-bit hash (UBIGINT)")
        prefer = preference(at, settings.highest, settings.lowest)
        text = f"one row of those within {settings.distance} bits of {settings.near}, {prefer.text}"
        return cls(at.name, at.place, settings, text, (hashes, *prefer.expressions), 0, prefer)

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Hash and rank of every row in memory, its uid on disk."""
        return _NearLearner(self, connection, scratch / f"uids_{files.number}", files)


class _NearLearner(Learner):
    def __init__(self, rule: Near, connection: Database, path: Path, files: RuleFiles) -> None:
        self.rule, self.connection, self.files = rule, connection, files
        self.uids = UidSpool(path)
        self.hashes: list[Hashes] = []
        self.ranks: list[Floats] = []

    def add(self, batch: Batch, in_scope: Mask | None) -> None:
        samples = rows_in_scope(batch, in_scope)
        hashes, *values = select(self.connection, samples, [e.sql for e in self.rule.expressions]).columns
        present = hashes.is_valid()
        self.uids.add(samples["uid"].filter(present))
        self.hashes.append(np.asarray(hashes.filter(present)).view(np.uint64))
        ranks = self.rule.prefer.ranks(values, samples["uid"])
        self.ranks.append(ranks[np.asarray(present).astype(bool)])

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        rule, files = self.rule, self.files
        hashes = np.concatenate(self.hashes) if self.hashes else np.empty(0, np.uint64)
        ranks = np.concatenate(self.ranks) if self.ranks else np.empty(0)
        self.hashes, self.ranks = [], []
        stay = survivors(hashes, np.argsort(-ranks, kind="stable"), rule.settings.distance, rule.place)
        ref, rows = write_uid_file(files.workspace, files.path(STEM), SCHEMA, losers_of(stay, self.uids))
        facts = {
            "file": ref.path.rsplit("/", 1)[-1],
            "rows_with_hash": len(hashes),
            "rows_dropped": rows,
        }
        return facts, [ref]
