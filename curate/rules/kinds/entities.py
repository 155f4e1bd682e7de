"""The rule ``entities``: words of a caption that are on a list, as in DataComp's text-based filter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.config.rules.entities import EntitiesRule
from curate.dataset import external
from curate.errors import UserError
from curate.rules.algorithms.wordnet import WordNet
from curate.rules.contract import BoundRule, CompiledRule, Compiling, Learned, RuleFiles, Verdict
from curate.rules.kinds.members import lines_of
from curate.rules.logic import Mask
from curate.samples.pool import Uids

_REMEMBERED = 1_000_000


@dataclass(frozen=True)
class Entities(CompiledRule):
    """A word of the caption, cut at white space, is listed. NULL is missing.

    With WordNet the list holds synsets, and a word stands for its first one (DataComp, arXiv 2304.14108,
    text-based filtering: the synsets of ImageNet-21k). Words keep their punctuation, so ``cat,`` is no
    word there, and only offsets are compared, whatever the part of speech. Without WordNet a word is
    compared as it is, in lower case.
    """

    settings: EntitiesRule

    any_order = True
    judges_uids = Uids.RAW

    @classmethod
    def compile(cls, settings: EntitiesRule, at: Compiling) -> Entities:
        """See ``CompiledRule.compile``."""
        caption = at.caption(settings.column, "column")
        text = f"{settings.column} has a word of {settings.entities}"
        return cls(at.name, at.place, settings, text, (caption,), 1)

    def check_files(self) -> None:
        """Reads the list."""
        self.recognised()

    def bind(self, learned: Learned, files: RuleFiles) -> BoundRule:
        """List and dictionary are in memory, WordNet's is about 60 MB."""
        finder = _Finder(self.recognised())

        return BoundRule(lambda rows: Verdict.on_present(rows.values[0], finder.find(rows.values[0])))

    def recognised(self) -> Callable[[str], bool]:
        """Whether a word counts.

        Raises:
            UserError: a file is missing, empty, or not what it should be.
        """
        place, settings = f"{self.place}.entities", self.settings
        file = f"{place}: {settings.entities}"
        lines = lines_of(external.read(settings.entities, place, settings.digest), file)
        if not lines:
            raise UserError(f"{file} lists nothing")
        if settings.wordnet is None:
            words = frozenset(line.lower() for line in lines)
            spaced = next((w for w in words if len(w.split()) > 1), None)
            if spaced is not None:
                raise UserError(f"{file}: '{spaced}' is more than one word; a caption is cut in words")
            return lambda word: word.lower() in words
        offsets = frozenset(_offset(line, file) for line in lines)
        dictionary = WordNet(settings.wordnet, f"{self.place}.wordnet")
        return lambda word: dictionary.first_synset(word) in offsets


def _offset(line: str, place: str) -> int:
    digits = line[1:] if line[:1].isalpha() else ""
    if not digits.isascii() or not digits.isdigit():
        raise UserError(f"{place}: '{line[:40]}' is no synset id such as n02084071; words need no `wordnet`")
    return int(digits)


class _Finder:
    """Remembers what it knows of words: captions have few different ones."""

    def __init__(self, counts: Callable[[str], bool]) -> None:
        self.counts = counts
        self.yes: set[str] = set()
        self.seen: set[str] = set()

    def find(self, captions: pa.ChunkedArray) -> Mask:
        """Which captions have a word that counts, bool, shape (n,)."""
        cut = [caption.split() if caption is not None else () for caption in captions.to_pylist()]
        if len(self.seen) > _REMEMBERED:
            self.yes.clear()
            self.seen.clear()
        new = set().union(*cut) - self.seen
        self.seen |= new
        self.yes |= {word for word in new if self.counts(word)}
        return np.array([not self.yes.isdisjoint(words) for words in cut], bool)
