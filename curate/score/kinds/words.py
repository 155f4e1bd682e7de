"""``type: words``: which listed words and phrases a caption has.

Both sides are folded first (see ``folded``). A match may not begin or end inside a word. Scripts that
are written without spaces show no words, so there every character stands alone: an entry in Chinese is
found anywhere, and an entry ``sm`` is found in 「SM女王」 but not in ``small``, whatever the list's language.

Of the matches the one that begins first counts, of those that begin together the longest, and the next
one is looked for behind its end.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate.config.scorers.words import WordsScorer
from curate.dataset import external
from curate.errors import UserError
from curate.score.contract import Columns, ColumnScorer, Shard, score_blocks

_LISTED = re.compile(r"([a-z]{2,3}(?:-[A-Za-z0-9]{1,8})*)(?:\.txt)?")
_SAME = {"tl": "fil", "nb": "no", "nn": "no", "iw": "he", "in": "id", "ji": "yi"}
"""Codes of one language, for which lists and detectors use different ones."""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf"  # Khmer, Tai Le, New Tai Lue, Tai Tham
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u302f\u3031-\u303c"  # radicals and signs of Han
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9d"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_RUN = re.compile(rf"[^\W_{_UNSPACED}]+")
_ONE_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_IGNORED = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")


class Words(ColumnScorer[WordsScorer]):
    """Matches in every caption: how many, of how many entries, and the first."""

    outputs = pa.schema({"count": pa.int32(), "distinct": pa.int32(), "first": pa.string()})

    def __init__(self, name: str, settings: WordsScorer) -> None:
        super().__init__(name, settings)
        self.files = {
            language: (url, external.digest(url, f"{self.place}.lists"))
            for language, url in sorted(_files(settings, f"{self.place}.lists").items())
        }
        column = settings.language_column
        self.columns = ("text",) if column in (None, "text") else ("text", column)
        _matchers(tuple((language, *file) for language, file in self.files.items()), self.place)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the lists' digests in place of where they are."""
        digests = {language: digest for language, (_, digest) in self.files.items()}
        return {**self.settings.facts(), "lists": digests, "languages": None}

    def score(self, shard: Shard) -> Columns:
        """In blocks of captions, so that memory is bounded."""
        matchers = _matchers(tuple((language, *file) for language, file in self.files.items()), self.place)
        texts, column = shard.samples["text"], self.settings.language_column
        languages = shard.samples[column] if column else pa.chunked_array([pa.nulls(len(texts), pa.string())])
        strict = column is not None and self.settings.otherwise == "none"

        def score_block(part: slice) -> Columns:
            size = part.stop - part.start
            captions = texts.slice(part.start, size).to_pylist()
            codes = languages.slice(part.start, size).cast(pa.string()).to_pylist()
            return score_words(captions, codes, matchers, strict)

        return score_blocks(len(texts), self.settings.batch_rows, score_block)


def score_words(
    captions: Sequence[str | None],
    languages: Sequence[str | None],
    matchers: Mapping[str | None, Matcher],
    strict: bool = False,
) -> Columns:
    """Matches of n captions.

    Args:
        captions: n texts or nulls.
        languages: n language codes or nulls.
        matchers: by language; None is the one of all lists.
        strict: leave out captions whose language has no matcher; otherwise all lists are for them.

    Returns:
        ``count``: matches, int32. ``distinct``: different entries among them, int32. ``first``: the first
        match as the list has it, folded, string; null when there is none. All null where there is no
        caption or, if strict, no list for it.
    """
    known: dict[str | None, Matcher | None] = {None: None if strict else matchers[None]}
    counts, distinct = np.zeros(len(captions), np.int32), np.zeros(len(captions), np.int32)
    missing = np.zeros(len(captions), bool)
    first: list[str | None] = [None] * len(captions)
    for row, (caption, language) in enumerate(zip(captions, languages, strict=True)):
        if language not in known:
            known[language] = matchers.get(_base(language), known[None]) if language else known[None]
        matcher = known[language]
        if caption is None or matcher is None:
            missing[row] = True
        elif found := matcher.find(folded(caption)):
            counts[row], distinct[row], first[row] = len(found), len(set(found)), found[0]
    return {
        "count": pa.array(counts, mask=missing),
        "distinct": pa.array(distinct, mask=missing),
        "first": pa.array(first, pa.string()),
    }


def folded(text: str) -> str:
    """Text as it is compared: compatibility forms and case folded, invisible characters removed.

    NFKC makes full-width letters and ligatures plain; runs of white space become one space.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    for _ in range(2):
        text = unicodedata.normalize("NFKC", _IGNORED.sub("", text).casefold())
    return " ".join(text.split())


def is_word(character: str) -> bool:
    """Is it part of a word: a letter, number or combining mark of a script that is written with spaces."""
    if _ONE_UNSPACED.match(character):
        return False
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def stands_alone(text: str, start: int, end: int) -> bool:
    """No word goes on over either end of ``text[start:end]``, and no combining mark follows."""
    if end < len(text):
        if unicodedata.category(text[end])[0] == "M":
            return False
        if is_word(text[end]) and is_word(text[end - 1]):
            return False
    return start == 0 or not (is_word(text[start - 1]) and is_word(text[start]))


class Matcher:
    """Finds the entries of a list in folded texts.

    An entry that begins with a word is looked up by the run of letters it begins with: one set
    intersection rules out nearly every caption. The others are tried where their first character is.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        by_run: dict[str, list[str]] = defaultdict(list)
        by_character: dict[str, list[str]] = defaultdict(list)
        for entry in sorted({e for e in entries if e}, key=lambda e: (-len(e), e)):
            run = _RUN.match(entry)
            if run:
                by_run[run[0]].append(entry)
            else:
                by_character[entry[0]].append(entry)
        self.by_run, self.by_character = dict(by_run), dict(by_character)
        self.runs = self.by_run.keys()
        starts = "".join(re.escape(c) for c in sorted(by_character))
        self.starts = re.compile(f"[{starts}]") if starts else None
        self.ascii_starts = any(c.isascii() for c in by_character)

    def find(self, text: str) -> list[str]:
        """Entries in a folded text, from left to right, the longest of those that begin together."""
        candidates: list[tuple[int, list[str]]] = []
        if not self.runs.isdisjoint(_RUN.findall(text)):
            candidates += ((m.start(), self.by_run[m[0]]) for m in _RUN.finditer(text) if m[0] in self.by_run)
        if self.starts and (self.ascii_starts or not text.isascii()):
            candidates += ((m.start(), self.by_character[m[0]]) for m in self.starts.finditer(text))
        return list(_chosen(text, sorted(candidates, key=lambda c: c[0]))) if candidates else []


def _chosen(text: str, candidates: list[tuple[int, list[str]]]) -> Iterator[str]:
    behind = 0
    for start, entries in candidates:
        if start < behind:
            continue
        for entry in entries:
            if text.startswith(entry, start) and stands_alone(text, start, start + len(entry)):
                behind = start + len(entry)
                yield entry
                break


def parse_list(data: bytes, source: str) -> list[str]:
    """Folded entries of a list: one per line; blank lines and lines that begin with ``# `` are none.

    Raises:
        UserError: not UTF-8, or no entries.
    """
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{source}:{line}: not UTF-8; save the list as UTF-8") from None
    entries = [folded(line) for line in lines if line.strip() != "#" and not line.startswith("# ")]
    entries = [entry for entry in dict.fromkeys(entries) if entry]
    if not entries:
        raise UserError(f"{source}: a word list without entries; one entry per line")
    return entries


def _files(settings: WordsScorer, place: str) -> dict[str, str]:
    """Language → file."""
    if isinstance(settings.lists, dict):
        if settings.languages is not None:
            raise UserError(
                f"{place}: `languages` chooses from a folder; leave out of `lists` what is not wanted"
            )
        return dict(settings.lists)
    inside = external.list_folder(settings.lists, place) or {}
    found = {m[1]: url for name, url in inside.items() if (m := _LISTED.fullmatch(name))}
    if not found:
        raise UserError(
            f"{place}: {settings.lists} is no folder with files named by language (`en`, `de.txt`)"
        )
    if settings.languages is None:
        return found
    lacking = [language for language in settings.languages if language not in found]
    if lacking:
        raise UserError(
            f"{place}: no list for {', '.join(lacking)} in {settings.lists} (there: {', '.join(found)})"
        )
    return {language: found[language] for language in settings.languages}


@functools.lru_cache(maxsize=8)
def _matchers(files: tuple[tuple[str, str, str], ...], place: str) -> dict[str | None, Matcher]:
    """Base language → its matcher, and None → that of all lists; once per process."""
    by_language: dict[str, list[str]] = defaultdict(list)
    for language, url, digest in files:
        by_language[_base(language)] += parse_list(external.read(url, f"{place}.lists", digest), url)
    everything = Matcher(entry for entries in by_language.values() for entry in entries)
    return {None: everything, **{language: Matcher(entries) for language, entries in by_language.items()}}


def _base(language: str) -> str:
    """``zh-Hant`` → ``zh``, and one code for what has two."""
    code = re.split(r"[-_]", language.strip().lower(), maxsplit=1)[0]
    return _SAME.get(code, code)
