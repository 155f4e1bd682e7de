"""Words of a caption that are on a list: DataComp's text-based filter and its like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.dataset import external
from curate.errors import UserError
from curate.rules.kinds import Compiled, Judging, Learned, Rows, RuleFiles, Verdict
from curate.rules.logic import Mask, Truth
from curate.rules.members import lines_of
from curate.rules.wordnet import WordNet
from curate.samples.pool import Uids

_REMEMBERED = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Entities(Compiled):
    """A word of the caption, cut at white space, is listed. NULL is missing.

    With WordNet the list holds synsets, and a word stands for its first one (DataComp, arXiv 2304.14108,
    text-based filtering: the synsets of ImageNet-21k). Words keep their punctuation, so ``cat,`` is no
    word there, and only offsets are compared, whatever the part of speech. Without WordNet a word is
    compared as it is, in lower case.
    """

    file: str
    wordnet: str | None
    digest: str | None

    kind = "entities"
    any_order = True
    judges_uids = Uids.RAW

    def check_files(self) -> None:
        """Reads the list."""
        self.recognised()

    def opened(self, learned: Learned, files: RuleFiles) -> Judging:
        """List and dictionary are in memory, WordNet's is about 60 MB."""
        finder = _Finder(self.recognised())

        def judge(rows: Rows) -> Verdict:
            missing = np.asarray(rows.values[0].is_null()).astype(bool)
            passed = finder.found(rows.values[0])
            return Verdict(Truth(passed, ~passed & ~missing))

        return Judging(judge)

    def recognised(self) -> Callable[[str], bool]:
        """Whether a word counts.

        Raises:
            UserError: a file is missing, empty, or not what it should be.
        """
        place = f"{self.place}.entities"
        lines = lines_of(external.read(self.file, place, self.digest), f"{place}: {self.file}")
        if not lines:
            raise UserError(f"{place}: {self.file} lists nothing")
        if self.wordnet is None:
            words = frozenset(line.lower() for line in lines)
            spaced = next((w for w in words if len(w.split()) > 1), None)
            if spaced is not None:
                raise UserError(
                    f"{place}: {self.file}: '{spaced}' is more than one word; a caption is cut in words"
                )
            return lambda word: word.lower() in words
        offsets = frozenset(_offset(line, f"{place}: {self.file}") for line in lines)
        dictionary = WordNet(self.wordnet, f"{self.place}.wordnet")
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

    def found(self, captions: pa.ChunkedArray) -> Mask:
        """Which captions have a word that counts, bool, shape (n,)."""
        cut = [caption.split() if caption is not None else () for caption in captions.to_pylist()]
        if len(self.seen) > _REMEMBERED:
            self.yes.clear()
            self.seen.clear()
        new = set().union(*cut) - self.seen
        self.seen |= new
        self.yes |= {word for word in new if self.counts(word)}
        return np.array([not self.yes.isdisjoint(words) for words in cut], bool)
