"""Rules that draw rows several times: what they draw goes to the selection's ``repeats``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import layout
from curate.dataset.workspace import FileRef
from curate.errors import UserError
from curate.rules.caps import Counts, hard_cap, soft_cap
from curate.rules.cuts import Floats
from curate.rules.draws import Words, words_of
from curate.rules.kinds import Compiled, Judging, Learned, Learner, Rows, RuleFiles, Verdict, rest
from curate.rules.logic import Mask, Truth
from curate.rules.uidfiles import GROUP_ROWS, UidFile, UidSpool, write_uid_file
from curate.samples.database import Database, select
from curate.samples.pool import Batch, UidAt, doubles

MAX_REPEATS = 1_000_000
"""Draws for each row, on average."""

SCHEMA = pa.schema([("uid", pa.string()), ("repeats", pa.int32())])


@dataclass(frozen=True, kw_only=True)
class Repeated(Compiled):
    """Rows drawn by softmax of a score; a score that is NULL, NaN or infinite is missing.

    Attributes:
        count: draws in all; None: as many as there are rows to look at.
    """

    count: int | None
    salt: int

    portable = False
    holds_rows = True

    @property
    def learns(self) -> bool:
        """What is drawn."""
        return True

    @abstractmethod
    def drawn(self, scores: Floats, words: Words, draws: int) -> Counts:
        """How often each row is drawn."""

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Score and 64 random bits of every row in memory, its uid on disk."""
        return _DrawLearner(self, connection, scratch / f"uids_{files.number}", files)

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """What was drawn passes."""
        drawn = UidFile(files.workspace, layout.selection_file(files.experiment, learned["file"]))

        def judge(rows: Rows) -> Verdict:
            listed = drawn.among(rows.uids)
            passed = np.asarray(pc.is_in(rows.uids, listed["uid"].combine_chunks())).astype(bool)
            missing = ~np.isfinite(doubles(rows.values[0]))
            repeats = np.ones(len(rows), np.int64)
            repeats[passed] = np.asarray(listed["repeats"])[
                np.flatnonzero(np.asarray(pc.is_in(listed["uid"], rows.uids.combine_chunks())).astype(bool))
            ]
            return Verdict(Truth(passed, ~passed & ~missing), repeats, listed)

        return Judging(judge, drawn.close)

    def note(self, learned: Learned, listed: pa.Table | None) -> str:
        """How often a row was drawn."""
        times = listed["repeats"][0].as_py() if listed is not None and listed.num_rows else 0
        return f"drawn {times} times" if times != 1 else "drawn once"

    def account(self, learned: Learned) -> dict[str, Any]:
        """Draws, and how often the row that was drawn most often."""
        return {"draws": learned["draws"], "most_repeats": learned["most_repeats"]}


@dataclass(frozen=True, kw_only=True)
class SoftCap(Repeated):
    """See ``curate.rules.caps.soft_cap``."""

    alpha: float
    batch: int

    kind = "soft_cap"

    def drawn(self, scores: Floats, words: Words, draws: int) -> Counts:
        """Each draw takes ``alpha`` from the score."""
        return soft_cap(scores, words, draws, self.alpha, self.batch)


@dataclass(frozen=True, kw_only=True)
class HardCap(Repeated):
    """See ``curate.rules.caps.hard_cap``."""

    at_most: int

    kind = "hard_cap"

    def drawn(self, scores: Floats, words: Words, draws: int) -> Counts:
        """A row is out after ``at_most`` draws."""
        return hard_cap(scores, words, draws, self.at_most)


class _DrawLearner(Learner):
    def __init__(self, rule: Repeated, connection: Database, path: Path, files: RuleFiles) -> None:
        self.rule, self.connection, self.files = rule, connection, files
        self.uids = UidSpool(path)
        self.scores: list[Floats] = []
        self.words: list[Words] = []
        self.rows = 0

    def add(self, batch: Batch, reached: Mask | None) -> None:
        samples = rest(batch, reached)
        self.rows += samples.num_rows
        scores = doubles(select(self.connection, samples, [self.rule.expressions[0].sql])["0"])
        usable = np.isfinite(scores)
        uids = samples["uid"].filter(pa.array(usable))
        self.uids.add(uids)
        self.scores.append(scores[usable])
        self.words.append(words_of(uids, self.rule.salt))

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        rule, files = self.rule, self.files
        draws = self.rows if rule.count is None else rule.count
        if draws > self.uids.rows * MAX_REPEATS and self.uids.rows:
            raise UserError(f"{rule.place}.count: {draws:,} draws of {self.uids.rows:,} rows are too many")
        if self.uids.rows:
            scores, words = np.concatenate(self.scores), np.concatenate(self.words)
            self.scores, self.words = [], []
            counts = rule.drawn(scores, words, draws)
        else:
            counts = np.zeros(0, np.int32)
        ref, rows = write_uid_file(files.workspace, files.path("repeats"), SCHEMA, self._drawn(counts))
        facts = {
            "file": ref.path.rsplit("/", 1)[-1],
            "rows": self.rows,
            "rows_with_value": self.uids.rows,
            "rows_drawn": rows,
            "draws": int(counts.sum(dtype=np.int64)),
            "most_repeats": int(counts.max(initial=0)),
        }
        return facts, [ref]

    def _drawn(self, counts: Counts) -> Iterator[pa.RecordBatch]:
        places = np.flatnonzero(counts)
        for start in range(0, len(places), GROUP_ROWS):
            part = places[start : start + GROUP_ROWS]
            yield pa.record_batch([self.uids.texts(part), pa.array(counts[part])], schema=SCHEMA)
