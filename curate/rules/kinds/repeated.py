"""The rules ``soft_cap`` and ``hard_cap``: rows drawn several times; the selection has how often."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.config.rules.hard_cap import HardCapRule
from curate.config.rules.soft_cap import SoftCapRule
from curate.dataset.workspace import FileRef
from curate.errors import UserError
from curate.rules.algorithms.caps import Counts, hard_cap, soft_cap
from curate.rules.algorithms.draws import Words, words_of
from curate.rules.algorithms.spool import Floats
from curate.rules.contract import (
    BoundRule,
    CompiledRule,
    Compiling,
    Learned,
    Learner,
    Rows,
    RuleFiles,
    Verdict,
    rows_in_scope,
)
from curate.rules.logic import Mask, Truth
from curate.rules.uidfiles import GROUP_ROWS, UidFile, UidSpool, write_uid_file
from curate.samples.database import Database, select
from curate.samples.pool import Batch, UidAt, doubles

MAX_REPEATS = 1_000_000
"""Draws for each row, on average."""

SCHEMA = pa.schema([("uid", pa.string()), ("repeats", pa.int32())])


@dataclass(frozen=True)
class Repeated(CompiledRule):
    """Rows drawn by softmax of a score; a score that is NULL, NaN or infinite is missing."""

    settings: SoftCapRule | HardCapRule
    salt: int

    learns = True
    holds_rows = True

    @abstractmethod
    def drawn(self, scores: Floats, words: Words, draws: int) -> Counts:
        """How often each row is drawn."""

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Score and 64 random bits of every row in memory, its uid on disk."""
        return _DrawLearner(self, connection, scratch / f"uids_{files.number}", files)

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """What was drawn passes."""
        drawn = UidFile(files.workspace, files.named(learned["file"]))

        def judge(rows: Rows) -> Verdict:
            listed = drawn.among(rows.uids)
            passed = np.asarray(pc.is_in(rows.uids, listed["uid"].combine_chunks())).astype(bool)
            missing = ~np.isfinite(doubles(rows.values[0]))
            repeats = np.ones(len(rows), np.int64)
            repeats[passed] = np.asarray(listed["repeats"])[
                np.flatnonzero(np.asarray(pc.is_in(listed["uid"], rows.uids.combine_chunks())).astype(bool))
            ]
            return Verdict(Truth(passed, ~passed & ~missing), repeats, listed)

        return BoundRule(judge, drawn.close)

    def note(self, learned: Learned, listed: pa.Table | None) -> str:
        """How often a row was drawn."""
        times = listed["repeats"][0].as_py() if listed is not None and listed.num_rows else 0
        return f"drawn {times} times" if times != 1 else "drawn once"

    def account(self, learned: Learned) -> dict[str, Any]:
        """Draws, and how often the row that was drawn most often."""
        return {"draws": learned["draws"], "most_repeats": learned["most_repeats"]}


@dataclass(frozen=True)
class SoftCap(Repeated):
    """Each draw takes something from the score of the row, see ``algorithms.caps.soft_cap``."""

    settings: SoftCapRule

    @classmethod
    def compile(cls, settings: SoftCapRule, at: Compiling) -> SoftCap:
        """See ``CompiledRule.compile``."""
        score = at.number(settings.soft_cap)
        text = f"{_draws(settings.count)} by {settings.soft_cap}, {settings.alpha:g} less for each"
        return cls(at.name, at.place, settings, text, (score,), 1, at.salt(settings.seed))

    def drawn(self, scores: Floats, words: Words, draws: int) -> Counts:
        """By the settings ``alpha`` and ``batch``."""
        return soft_cap(scores, words, draws, self.settings.alpha, self.settings.batch)


@dataclass(frozen=True)
class HardCap(Repeated):
    """A row is out after so many draws, see ``algorithms.caps.hard_cap``."""

    settings: HardCapRule

    @classmethod
    def compile(cls, settings: HardCapRule, at: Compiling) -> HardCap:
        """See ``CompiledRule.compile``."""
        score = at.number(settings.hard_cap)
        text = f"{_draws(settings.count)} by {settings.hard_cap}, at most {settings.at_most} of a row"
        return cls(at.name, at.place, settings, text, (score,), 1, at.salt(settings.seed))

    def drawn(self, scores: Floats, words: Words, draws: int) -> Counts:
        """By the setting ``at_most``."""
        return hard_cap(scores, words, draws, self.settings.at_most)


def _draws(count: int | None) -> str:
    return "as many draws as rows" if count is None else f"{count:,} draws"


class _DrawLearner(Learner):
    def __init__(self, rule: Repeated, connection: Database, path: Path, files: RuleFiles) -> None:
        self.rule, self.connection, self.files = rule, connection, files
        self.uids = UidSpool(path)
        self.scores: list[Floats] = []
        self.words: list[Words] = []
        self.rows = 0

    def add(self, batch: Batch, in_scope: Mask | None) -> None:
        samples = rows_in_scope(batch, in_scope)
        self.rows += samples.num_rows
        scores = doubles(select(self.connection, samples, [self.rule.expressions[0].sql])["0"])
        usable = np.isfinite(scores)
        uids = samples["uid"].filter(pa.array(usable))
        self.uids.add(uids)
        self.scores.append(scores[usable])
        self.words.append(words_of(uids, self.rule.salt))

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        rule, files = self.rule, self.files
        draws = self.rows if rule.settings.count is None else rule.settings.count
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
