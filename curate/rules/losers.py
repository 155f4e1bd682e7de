"""Rules that learn a file of the rows that go, each with the row that stays in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.rules.algorithms.hamming import Places
from curate.rules.contract import BoundRule, CompiledRule, Learned, Rows, RuleFiles, Verdict
from curate.rules.logic import Truth
from curate.rules.uidfiles import GROUP_ROWS, UidFile, UidSpool

SCHEMA = pa.schema([("uid", pa.string()), ("survivor", pa.string())])
STEM = "duplicates"
"""Of the file's name."""


@dataclass(frozen=True)
class Dropping(CompiledRule):
    """Everything passes but the losers."""

    learns = True

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """Holds a row group of the file."""
        losers = UidFile(files.workspace, files.named(learned["file"]))

        def judge(rows: Rows) -> Verdict:
            listed = losers.among(rows.uids)
            lost = np.asarray(pc.is_in(rows.uids, listed["uid"].combine_chunks())).astype(bool)
            return Verdict(Truth(~lost, lost), listed=listed)

        return BoundRule(judge, losers.close)

    def note(self, learned: Learned, listed: pa.Table | None) -> str:
        """What a row is a copy of."""
        return f"copy of {listed['survivor'][0].as_py()}" if listed is not None and listed.num_rows else ""


def losers_of(stay: Places, uids: UidSpool) -> Iterator[pa.RecordBatch]:
    """Rows that go, with the row that stays in their place.

    Args:
        stay: for each row the place of the one that stays, shape (n,).
        uids: of these rows, in uid order.
    """
    gone = np.flatnonzero(stay != np.arange(len(stay)))
    for start in range(0, len(gone), GROUP_ROWS):
        part = gone[start : start + GROUP_ROWS]
        yield pa.record_batch([uids.texts(part), uids.texts(stay[part])], schema=SCHEMA)
