"""MetaCLIP's balancing (arXiv 2309.16671, section 3 and algorithm 1; ``metaclip1/substr_matching.py``).

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

from curate.dataset import external, layout
from curate.dataset.workspace import FileRef
from curate.errors import UserError
from curate.rules.draws import uniforms, words_of
from curate.rules.kinds import Compiled, Judging, Learned, Learner, Rows, RuleFiles, Verdict, rest
from curate.rules.logic import Mask, Truth
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


@dataclass(frozen=True, kw_only=True)
class Balance(Compiled):
    """A caption of a rare entry stays, one of frequent entries by chance, one without any goes."""

    file: str
    digest: str | None
    t: int
    salt: int

    kind = "balance"
    any_order = True
    learns_uids = Uids.NONE
    judges_uids = Uids.RAW

    @property
    def learns(self) -> bool:
        """How often each entry matches."""
        return True

    def check_files(self) -> None:
        """Reads the list."""
        self.entries()

    def learner(self, connection: Database, scratch: Path, files: RuleFiles) -> Learner:
        """Entries and counts are in memory."""
        return _BalanceLearner(self, connection, files)

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """One draw for each uid against the probability of its caption."""
        path = layout.selection_file(files.experiment, learned["file"])
        counts = np.asarray(files.workspace.read_table(path, ["count"])["count"])
        matcher = Matcher(self.entries())
        miss = 1.0 - self.t / np.maximum(counts, self.t)

        def judge(rows: Rows) -> Verdict:
            missing = np.asarray(rows.values[0].is_null()).astype(bool)
            dropped = [_product(miss, matcher.find(c)) if c else 1.0 for c in rows.values[0].to_pylist()]
            drawn = uniforms(words_of(rows.uids, self.salt))
            passed = (drawn < 1.0 - np.array(dropped, np.float64)) & ~missing
            return Verdict(Truth(passed, ~passed & ~missing))

        return Judging(judge)

    def entries(self) -> list[str]:
        """The metadata. Raises UserError, see ``read_entries``."""
        place = f"{self.place}.entries"
        return read_entries(external.read(self.file, place, self.digest), f"{place}: {self.file}")

    def account(self, learned: Learned) -> dict[str, Any]:
        """Entries, how many are too frequent, captions without any."""
        return {k: learned[k] for k in ("entries", "entries_matched", "entries_thinned", "rows_unmatched")}


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

    def add(self, batch: Batch, reached: Mask | None) -> None:
        captions = select(self.connection, rest(batch, reached), [self.rule.expressions[0].sql])["0"]
        for caption in captions.drop_null().to_pylist():
            places = self.matcher.find(caption)
            for place in places:
                self.counts[place] += 1
            self.unmatched += not places

    def finish(self, uid_at: UidAt) -> tuple[dict[str, Any], list[FileRef]]:
        table = pa.table({"entry": self.names, "count": self.counts})
        ref = self.files.workspace.write_table(self.files.path("entries"), table)
        facts = {
            "file": ref.path.rsplit("/", 1)[-1],
            "entries": len(self.names),
            "entries_matched": int(np.count_nonzero(self.counts)),
            "entries_thinned": int(np.count_nonzero(self.counts > self.rule.t)),
            "rows_unmatched": self.unmatched,
        }
        return facts, [ref]
