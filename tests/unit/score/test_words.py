from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.config.models import EmbedSettings
from curate.config.scorers.text import TextScorer
from curate.config.scorers.words import WordsScorer
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.plan import make_plan
from curate.errors import UserError
from curate.score.kinds.words import Matcher, Words, folded, is_word, parse_list, score_words
from curate.score.stage import ScoreStage
from tests.unit.embed.clip_shards import dataset, run_stage, samples

UNSPACED = ("THAI ", "LAO ", "TIBETAN ", "MYANMAR ", "KHMER ", "CJK ", "HIRAGANA ", "KATAKANA ", "BOPOMOFO ")


def plain_word(character: str) -> bool:
    """By the character's Unicode name instead of its place."""
    if unicodedata.name(character, "").startswith(UNSPACED):
        return False
    return unicodedata.category(character)[0] in "LNM"


def plain_find(entries: list[str], text: str) -> list[str]:
    """Every position, every entry, longest first."""

    def fits(start: int, end: int) -> bool:
        before, after = text[start - 1 : start], text[end : end + 1]
        if after and unicodedata.category(after)[0] == "M":
            return False
        if before and plain_word(before) and plain_word(text[start]):
            return False
        return not (after and plain_word(after) and plain_word(text[end - 1]))

    found, at = [], 0
    while at < len(text):
        here = [e for e in entries if e and text[at : at + len(e)] == e and fits(at, at + len(e))]
        if here:
            best = max(here, key=len)
            found.append(best)
            at += len(best)
        else:
            at += 1
    return found


ALPHABET = "ab _-'&1é\u0301\u0308日本กีหカ한ßK $😀"
words = st.text(ALPHABET, min_size=1, max_size=5)


@settings(max_examples=600, deadline=None)
@given(st.lists(words, min_size=1, max_size=8), st.lists(st.text(ALPHABET, max_size=6), max_size=12), words)
@example(["a", "a b"], ["a b a"], " ")
@example(["sm", "sm女王"], ["SM女王です small ｓｍ"], " ")
@example(["ห"], ["หี ห"], " ")
def test_the_matcher_is_its_definition(entries: list[str], parts: list[str], glue: str) -> None:
    listed = [folded(e) for e in entries]
    text = folded(glue.join([*parts, *entries[:2]]))
    assert Matcher(listed).find(text) == plain_find(listed, text)


@given(st.text(max_size=30))
@example("İﬃ ＡＢ\u3000c\u200bd ͅα")
def test_folding_is_done_once(text: str) -> None:
    once = folded(text)
    assert folded(once) == once
    assert "  " not in once
    assert once == once.strip()


def test_ascii_is_folded_like_everything_else() -> None:
    text = "".join(map(chr, range(128)))
    general = " ".join(unicodedata.normalize("NFKC", text.casefold()).split())
    assert folded(text) == general


def test_a_word_is_what_the_unicode_database_calls_one() -> None:
    for character in "aé1½Ω한ँ日ひカไทยກ ༀ မ က្ខ_-\u0301😀":
        assert is_word(character) == plain_word(character), character


def test_words_have_bounds_and_scripts_without_spaces_have_none() -> None:
    matcher = Matcher(["ass", "ball gag", "sm", "エロ", "口交", "ghuy'cha'"])
    found = {
        "bass classic pass": [],
        "what an ASS!": ["ass"],
        "hot_ass_picture.jpg, ass": ["ass", "ass"],
        "ball\n  GAG": ["ball gag"],
        "ball gags": [],
        "small sm": ["sm"],
        "ＳＭ女王": ["sm"],
        "これはエロい": ["エロ"],
        "他说口交了": ["口交"],
        "ghuy'cha' baQa": ["ghuy'cha'"],
        "ass\u0301": [],
    }
    assert {text: matcher.find(folded(text)) for text in found} == found


def test_languages_choose_their_lists() -> None:
    matchers = {None: Matcher(["gift", "bad"]), "de": Matcher(["gift"]), "en": Matcher(["bad"])}
    texts = ["a gift", "a gift", "Gift", "bad gift bad", None, "gift"]
    codes = ["en", "de", "de-AT", None, "en", "fr"]
    table = pa.table(score_words(texts, codes, matchers))
    assert table["count"].to_pylist() == [0, 1, 1, 3, None, 1]
    assert table["distinct"].to_pylist() == [0, 1, 1, 2, None, 1]
    assert table["first"].to_pylist() == [None, "gift", "gift", "bad", None, "gift"]
    assert table.schema.types == [pa.int32(), pa.int32(), pa.string()]
    strict = score_words(texts, codes, matchers, strict=True)
    assert strict["count"].to_pylist() == [0, 1, 1, None, None, None]


def test_a_list_is_lines_of_utf8() -> None:
    assert parse_list("\ufeffÀ B \n\n# note\n#tag\nà  b\n".encode(), "f") == ["à b", "#tag"]
    with pytest.raises(UserError, match="f:2: not UTF-8"):
        parse_list(b"ok\n\xff\n", "f")
    with pytest.raises(UserError, match="without entries"):
        parse_list(b"# only a comment\n", "f")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "en").write_text("thing\npicture of thing 3\n")
    (lists / "de.txt").write_text("ding\n")
    (lists / "LICENSE").write_text("all of it")
    return lists


def test_the_stage_counts_and_a_changed_list_redoes_it(tmp_path: Path, folder: Path) -> None:
    workspace = Workspace(str(tmp_path / "w"))
    dataset(workspace, samples(12), shards=2)
    embed = EmbedSettings()
    run_stage(workspace, ScoreStage("text", TextScorer(type="text"), embed))
    scorer = WordsScorer(type="words", lists=str(folder), batch_rows=3)
    run_stage(workspace, ScoreStage("bad", scorer, embed))
    rows = [
        r for i in range(2) for r in workspace.read_table(Family.scores("bad").path(f"{i:05d}")).to_pylist()
    ]
    firsts = ["picture of thing 3" if text.endswith("thing 3") else "thing" for _, text, _ in samples(12)]
    assert [r["bad_first"] for r in rows] == firsts
    assert {r["bad_count"] for r in rows} == {1}
    stage = pickle.loads(pickle.dumps(ScoreStage("bad", scorer, embed)))
    assert make_plan(stage, workspace, RecordStore(workspace)).jobs == []
    moved = folder.rename(tmp_path / "elsewhere")
    again = ScoreStage("bad", scorer.model_copy(update={"lists": str(moved)}), embed)
    assert make_plan(again, workspace, RecordStore(workspace)).jobs == []
    (moved / "en").write_text("something else\n")
    changed = ScoreStage("bad", scorer.model_copy(update={"lists": str(moved)}), embed)
    assert len(make_plan(changed, workspace, RecordStore(workspace)).jobs) == 2
    by_language = WordsScorer(type="words", lists=str(moved), language_column="text_lang", otherwise="none")
    run_stage(workspace, ScoreStage("own", by_language, embed, ("text",)))
    assert workspace.read_table(Family.scores("own").path("00000")).num_rows == len(
        [r for r in rows if r["uid"] < "8"]
    )


def test_mistakes_are_named(folder: Path) -> None:
    def make(**settings: object) -> Words:
        return Words("w", WordsScorer(type="words", **settings))  # type: ignore[arg-type]

    with pytest.raises(UserError, match=r"no list for fr .*there: de, en"):
        make(lists=str(folder), languages=("fr",))
    with pytest.raises(UserError, match="no folder"):
        make(lists=str(folder / "nothing"))
    with pytest.raises(UserError, match="no such file"):
        make(lists={"en": str(folder / "nothing")})
    with pytest.raises(ValueError, match="names no list"):
        make(lists={})
    assert list(make(lists=str(folder), languages=("de",)).files) == ["de"]


def test_the_public_lists_load_and_agree_with_the_definition(fixtures_dir: Path) -> None:
    scorer = Words("w", WordsScorer(type="words", lists=str(fixtures_dir / "filters" / "ldnoobw")))
    assert len(scorer.files) == 28
    table = pq.read_table(fixtures_dir / "meta" / "test_10000.parquet")
    column = next(name for name in table.column_names if name.lower() in ("text", "caption"))
    captions = table[column].to_pylist()[:400]
    listed = {
        entry
        for language, (path, _) in scorer.files.items()
        if language in ("en", "ja", "zh", "th", "tlh")
        for entry in parse_list(Path(path).read_bytes(), path)
    }
    matcher = Matcher(listed)
    few = sorted(listed)
    for caption in captions:
        if caption is not None:
            assert matcher.find(folded(caption)) == plain_find(few, folded(caption))
