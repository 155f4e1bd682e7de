"""Near duplicates by perceptual hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.dataset.workspace import FileRef
from curate.rules.cuts import Floats
from curate.rules.duplicates import SCHEMA, Dropping
from curate.rules.hamming import Hashes, Places, survivors
from curate.rules.kinds import Learner, RuleFiles, rest
from curate.rules.logic import Mask
from curate.rules.preference import Preference
from curate.rules.uidfiles import GROUP_ROWS, UidSpool, write_uid_file
from curate.samples.database import Database, select
from curate.samples.pool import Batch, UidAt


@dataclass(frozen=True, kw_only=True)
class Near(Dropping):
    """From the best row to the worst, each stays unless it is near to one that stays. See ``survivors``.

    A row without a hash has no duplicates and passes.
    """

    distance: int
    prefer: Preference

    kind = "near"
    holds_rows = True

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Hash and rank of every row in memory, its uid on disk."""
        return _NearLearner(self, connection, scratch / f"uids_{files.number}", files)


class _NearLearner(Learner):
    def __init__(self, rule: Near, connection: Database, path: Path, files: RuleFiles) -> None:
        self.rule, self.connection, self.files = rule, connection, files
        self.uids = UidSpool(path)
        self.hashes: list[Hashes] = []
        self.ranks: list[Floats] = []

    def add(self, batch: Batch, reached: Mask | None) -> None:
        samples = rest(batch, reached)
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
        stay = survivors(hashes, np.argsort(-ranks, kind="stable"), rule.distance, rule.place)
        ref, rows = write_uid_file(files.workspace, files.path("duplicates"), SCHEMA, losers(stay, self.uids))
        facts = {
            "file": ref.path.rsplit("/", 1)[-1],
            "rows_with_hash": len(hashes),
            "rows_dropped": rows,
        }
        return facts, [ref]


def losers(stay: Places, uids: UidSpool) -> Iterator[pa.RecordBatch]:
    """Rows that go, with the row that stays in their place.

    Args:
        stay: for each row the place of the one that stays, shape (n,).
        uids: of these rows, in uid order.
    """
    gone = np.flatnonzero(stay != np.arange(len(stay)))
    for start in range(0, len(gone), GROUP_ROWS):
        part = gone[start : start + GROUP_ROWS]
        yield pa.record_batch([uids.texts(part), uids.texts(stay[part])], schema=SCHEMA)
