"""The rule ``balance``: captions by the entries of a metadata list, as MetaCLIP does.

See arXiv 2309.16671, section 3 and algorithm 1, and ``metaclip1/substr_matching.py``.

A caption matches an entry that stands in it between spaces, after each of ``, . ; : ? ! ``` has got
spaces around it and tabs and line ends have become spaces; case counts. An entry that matches count
captions lets each of them pass with p = t / max(count, t), independently, and a caption stays when any
of its entries lets it: with 1 - prod(1 - p). One draw for each uid makes that reproducible.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.config.rules.balance import BalanceRule
from curate.dataset import external
from curate.dataset.workspace import FileRef
from curate.errors import UserError
from curate.rules.algorithms.draws import uniforms, words_of
from curate.rules.contract import (
    BoundRule,
    CompiledRule,
    Compiling,
    Learned,
    LearnedForm,
    Learner,
    Rows,
    RuleFiles,
    Verdict,
    rows_in_scope,
)
from curate.rules.learned import is_count, is_text
from curate.rules.logic import Mask
from curate.samples.database import Database, select
from curate.samples.pool import Batch, UidAt, Uids

_APART = str.maketrans({c: f" {c} " for c in ",.;:?!`"} | dict.fromkeys("\t\n\r", " "))


class Matcher:
    """Finds entries in captions."""

    def __init__(self, entries: Sequence[str]) -> None:
        """Args: entries: different texts."""
        self.places = {entry: i for i, entry in enumerate(entries)}
        lengths: dict[str, set[int]] = {}
        for entry in entries:
            words = entry.split(" ")
            lengths.setdefault(words[0], set()).add(len(words))
        # An entry between spaces is a run of words, if an empty word is one: so by its first word.
        self.lengths = {word: sorted(found) for word, found in lengths.items()}

    def find(self, caption: str) -> set[int]:
        """Numbers of the entries that a caption matches."""
        words = caption.translate(_APART).split(" ")
        found = set()
        for start, word in enumerate(words):
            for length in self.lengths.get(word, ()):
                if start + length <= len(words):
                    place = self.places.get(" ".join(words[start : start + length]))
                    if place is not None:
                        found.add(place)
        return found


def read_entries(data: bytes, place: str) -> list[str]:
    """The different entries of a metadata file in their order: a JSON list of texts, or one a line.

    Raises:
        UserError: not UTF-8, not a list of texts, or empty.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 text (byte {error.start})") from None
    entries: list[Any] = text.splitlines()
    if text.lstrip().startswith("["):
        try:
            entries = json.loads(text)
        except ValueError as error:
            raise UserError(f"{place}: not a JSON list of texts ({error})") from None
    wrong = next((e for e in entries if not isinstance(e, str)), None)
    if wrong is not None:
        raise UserError(f"{place}: {wrong!r} is not a text")
    found = list(dict.fromkeys(e for e in entries if e))
    if not found:
        raise UserError(f"{place}: has no entries")
    return found


_STEM = "entries"
_COUNTS = ("entries", "entries_matched", "entries_thinned", "rows_unmatched")


@dataclass(frozen=True)
class Balance(CompiledRule):
    """A caption of a rare entry stays, one of frequent entries by chance, one without any goes."""

    settings: BalanceRule
    salt: int

    any_order = True
    learns = True
    learns_uids = Uids.NONE
    judges_uids = Uids.RAW

    @classmethod
    def compile(cls, settings: BalanceRule, at: Compiling) -> Balance:
        """See ``CompiledRule.compile``."""
        caption = at.caption(settings.balance)
        text = f"{settings.balance} balanced by {settings.entries}, t = {settings.t:,}"
        return cls(at.name, at.place, settings, text, (caption,), 1, at.salt(settings.seed))

    @classmethod
    def learned_form(cls, settings: BalanceRule) -> LearnedForm:
        """A file with the count of every entry, and some sums."""
        return LearnedForm({"file": is_text, **dict.fromkeys(_COUNTS, is_count)}, _STEM)

    def check_files(self) -> None:
        """Reads the list."""
        self.entries()

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Entries and counts are in memory."""
        return _BalanceLearner(self, connection, files)

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """One draw for each uid against the probability of its caption."""
        table = files.workspace.read_table(files.named(learned["file"]), ["count"])
        counts = np.asarray(table["count"])
        matcher = Matcher(self.entries())
        miss = 1.0 - self.settings.t / np.maximum(counts, self.settings.t)

        def judge(rows: Rows) -> Verdict:
            dropped = [_product(miss, matcher.find(c)) if c else 1.0 for c in rows.values[0].to_pylist()]
            drawn = uniforms(words_of(rows.uids, self.salt))
            return Verdict.on_present(rows.values[0], drawn < 1.0 - np.array(dropped, np.float64))

        return BoundRule(judge)

    def entries(self) -> list[str]:
        """The metadata. Raises UserError, see ``read_entries``."""
        place = f"{self.place}.entries"
        file, digest = self.settings.entries, self.settings.digest
        return read_entries(external.read(file, place, digest), f"{place}: {file}")

    def account(self, learned: Learned) -> dict[str, Any]:
        """Entries, how many are too frequent, captions without any."""
        return {key: learned[key] for key in _COUNTS}


def _product(miss: npt.NDArray[np.float64], places: Iterable[int]) -> float:
    product = 1.0
    for place in sorted(places):
        product *= float(miss[place])
    return product


class _BalanceLearner(Learner):
    def __init__(self, rule: Balance, connection: Database, files: RuleFiles) -> None:
        self.rule, self.connection, self.files = rule, connection, files
        self.names = rule.entries()
        self.matcher = Matcher(self.names)
        self.counts = np.zeros(len(self.names), np.int64)
        self.unmatched = 0

    def add(self, batch: Batch, in_scope: Mask | None) -> None:
        captions = select(self.connection, rows_in_scope(batch, in_scope), [self.rule.expressions[0].sql])[
            "0"
        ]
        for caption in captions.drop_null().to_pylist():
            places = self.matcher.find(caption)
            for place in places:
                self.counts[place] += 1
            self.unmatched += not places

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        table = pa.table({"entry": self.names, "count": self.counts})
        ref = self.files.workspace.write_table(self.files.path(_STEM), table)
        facts = {
            "file": ref.path.rsplit("/", 1)[-1],
            "entries": len(self.names),
            "entries_matched": int(np.count_nonzero(self.counts)),
            "entries_thinned": int(np.count_nonzero(self.counts > self.rule.settings.t)),
            "rows_unmatched": self.unmatched,
        }
        return facts, [ref]
