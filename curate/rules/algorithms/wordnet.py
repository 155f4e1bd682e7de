"""WordNet's dictionary files: what a word's first synset is, as nltk finds it.

nltk's ``wordnet.synsets(word)[0].offset()`` is the number that DataComp's text-based filter looks up.
The order of search and the rules of inflection are those of nltk since 3.7 (one step of inflection, no
second): nouns, verbs, adjectives, adverbs; of each the word itself, then its base forms.
"""

from __future__ import annotations

from collections.abc import Iterator

from curate.dataset import external
from curate.errors import UserError

PARTS = ("noun", "verb", "adj", "adv")
_ENDINGS = {
    "noun": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "verb": "s: ies:y es:e es: ed:e ed: ing:e ing:",
    "adj": "er: est: er:e est:e",
    "adv": "",
}
"""Ending and what stands in its place in the base form (wordnet's morphy(7WN))."""

_SUBSTITUTIONS = {
    part: [(pair.split(":")[0], pair.split(":")[1]) for pair in text.split()]
    for part, text in _ENDINGS.items()
}


class WordNet:
    """Words and their synsets, of the files ``index.*`` and ``*.exc`` of one folder."""

    def __init__(self, folder: str, place: str) -> None:
        """Read the files. Raises UserError when one is not there or not WordNet's."""
        self._first: dict[str, dict[str, int]] = {}
        self._irregular: dict[str, dict[str, list[str]]] = {}
        for part in PARTS:
            self._first[part] = dict(_index(_lines(folder, f"index.{part}", place), f"{place}: index.{part}"))
            terms = (line.split() for line in _lines(folder, f"{part}.exc", place))
            self._irregular[part] = {words[0]: words[1:] for words in terms if words}

    def first_synset(self, word: str) -> int | None:
        """Offset of a word's first synset; None for a word that WordNet does not have."""
        lower = word.lower()
        for part in PARTS:
            known = self._first[part]
            for form in (lower, *self._base_forms(lower, part)):
                if form in known:
                    return known[form]
        return None

    def _base_forms(self, word: str, part: str) -> list[str]:
        irregular = self._irregular[part].get(word)
        if irregular is not None:
            return irregular
        return [word[: -len(old)] + new for old, new in _SUBSTITUTIONS[part] if word.endswith(old)]


def _lines(folder: str, name: str, place: str) -> list[str]:
    return external.read(f"{folder.rstrip('/')}/{name}", place).decode("utf-8", "replace").splitlines()


def _index(lines: list[str], place: str) -> Iterator[tuple[str, int]]:
    """Lemma and its first offset: ``lemma pos synset_cnt p_cnt [ptr…] sense_cnt tagsense_cnt offset…``."""
    for number, line in enumerate(lines, 1):
        if line.startswith(" ") or not line:
            continue
        words = line.split()
        try:
            yield words[0], int(words[4 + int(words[3]) + 2])
        except (ValueError, IndexError):
            raise UserError(f"{place}: line {number} is not of a WordNet index: '{line[:60]}'") from None
