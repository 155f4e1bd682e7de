"""Word lists, WordNet, and the metadata of balancing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config.rules.entities import WORDNET_FILES
from curate.dataset import layout
from curate.errors import UserError
from curate.rules.algorithms.draws import salt_of, uniforms, words_of
from curate.rules.algorithms.wordnet import WordNet
from curate.rules.kinds.balance import Matcher, read_entries
from tests.unit.filter.filter_pool import cut_in_shards, kept_uids, run_experiment, uid_from, write_pool

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
INDEX = {
    "noun": [
        "dog n 7 5 @ ~ #m #p %p 7 1 02084071 10114209 10023039 09886220 07676602 03901548 02710044",
        "cat n 8 4 @ ~ #m %p 8 1 02121620 10153414 09900153 03608870 02985606 02983507 02127808 00901083",
        "man n 1 1 @ 1 1 10287213",
        "glass n 1 1 @ 1 1 03438257",
        "box n 1 1 @ 1 0 02883344",
        "ice_cream n 1 1 @ 1 1 07614500",
        "goose n 1 1 @ 1 1 01855672",
        "berry n 1 1 @ 1 1 12655498",
    ],
    "verb": ["run v 1 1 @ 1 1 01926311", "dog v 1 1 @ 1 0 02001858", "hope v 1 1 @ 1 1 00699815"],
    "adj": ["nice a 1 0 1 1 01586342", "large a 1 0 1 1 01382086"],
    "adv": ["fast r 1 0 1 1 00085811"],
}
IRREGULAR = {"noun": ["geese goose", "oxen ox"], "verb": ["ran run"], "adj": ["better good"], "adv": []}


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    folder = tmp_path / "dict"
    folder.mkdir()
    for part, lines in INDEX.items():
        (folder / f"index.{part}").write_text(LICENCE + "".join(f"{line}  \n" for line in lines))
        (folder / f"{part}.exc").write_text("".join(f"{line}\n" for line in IRREGULAR[part]))
    assert {p.name for p in folder.iterdir()} == set(WORDNET_FILES)
    return folder


class TestWordNet:
    @pytest.mark.parametrize(
        ("word", "offset"),
        [
            ("dog", 2084071),  # its first sense as a noun, not as a verb
            ("DOGS", 2084071),
            ("men", 10287213),
            ("glasses", 3438257),
            ("boxes", 2883344),
            ("berries", 12655498),
            ("geese", 1855672),
            ("ran", 1926311),
            ("hoping", 699815),
            ("nicer", 1586342),
            ("largest", 1382086),
            ("fast", 85811),
            ("ice_cream", 7614500),
            ("cat,", None),  # words keep their punctuation
            ("oxen", None),  # its base form is not there
            ("dogss", None),  # one step of inflection, no second
            ("running", None),  # doubled letters are no rule
            ("fastest", None),
            ("", None),
        ],
    )
    def test_first_synset(self, dictionary: Path, word: str, offset: int | None) -> None:
        assert WordNet(str(dictionary), "place").first_synset(word) == offset

    def test_what_is_no_index_is_named(self, dictionary: Path) -> None:
        (dictionary / "index.verb").write_text("run v two\n")
        with pytest.raises(UserError, match=r"place: index\.verb: line 1 is not of a WordNet index"):
            WordNet(str(dictionary), "place")

    def test_a_missing_file_is_named(self, dictionary: Path) -> None:
        (dictionary / "adv.exc").unlink()
        with pytest.raises(UserError, match=r"place: .*adv\.exc: no such file"):
            WordNet(str(dictionary), "place")


def kept(folder: Path, texts: list[str | None], rule: dict[str, Any]) -> list[int]:
    """Places of the captions that stay."""
    rows = [{"uid": uid_from(i), "text": text} for i, text in enumerate(texts)]
    workspace = write_pool(folder / "pool", cut_in_shards(rows, 2))
    run_experiment(workspace, "e", {"rules": {"r": rule}})
    return [int(uid, 16) for uid in kept_uids(workspace, "e")]


class TestEntities:
    CAPTIONS = ("a DOG", "two dogs", "dog, sitting", "a cat", None, "", "in a\tdog\nhouse", "running")

    def test_synsets(self, tmp_path: Path, dictionary: Path) -> None:
        (tmp_path / "ids.txt").write_text("n02084071\n\nn99999999\n")
        rule = {"entities": str(tmp_path / "ids.txt"), "wordnet": str(dictionary)}
        assert kept(tmp_path, list(self.CAPTIONS), rule) == [0, 1, 6]

    def test_words(self, tmp_path: Path) -> None:
        (tmp_path / "words.txt").write_text("Dog\ncat\n")
        assert kept(tmp_path, list(self.CAPTIONS), {"entities": str(tmp_path / "words.txt")}) == [0, 3, 6]

    def test_a_null_is_missing_and_no_word_is_a_fail(self, tmp_path: Path) -> None:
        (tmp_path / "words.txt").write_text("dog")
        kept(tmp_path, ["dog", None, "x"], {"entities": str(tmp_path / "words.txt")})
        funnel = json.loads((tmp_path / "pool" / layout.selection_file("e", "funnel.json")).read_text())
        assert funnel["reasons"] == {"missing_score": 1, "r": 1}

    @pytest.mark.parametrize(
        ("content", "wordnet", "message"),
        [
            (b"", False, "lists nothing"),
            (b"\n \n", False, "lists nothing"),
            (b"ice cream", False, "'ice cream' is more than one word"),
            (b"\xff\xfe", False, r"not UTF-8 text \(byte 0\)"),
            (b"dog", True, "'dog' is no synset id such as n02084071"),
        ],
    )
    def test_files_that_will_not_do(
        self, tmp_path: Path, dictionary: Path, content: bytes, wordnet: bool, message: str
    ) -> None:
        (tmp_path / "f.txt").write_bytes(content)
        rule = {"entities": str(tmp_path / "f.txt"), **({"wordnet": str(dictionary)} if wordnet else {})}
        with pytest.raises(UserError, match=rf"rules\.r\.entities: .*{message}"):
            kept(tmp_path, ["a"], rule)


def padded(text: str) -> str:
    """The published way: a text between spaces, punctuation apart."""
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for space in "\t\n\r":
        text = text.replace(space, " ")
    return f" {text} "


TEXTS = st.text(alphabet="abA ,.\t\n", max_size=12)


class TestBalance:
    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.text(alphabet="abA ,", min_size=1, max_size=5), min_size=1, unique=True), TEXTS)
    def test_entries_are_found_between_spaces(self, entries: list[str], text: str) -> None:
        spaced = padded(text)
        expected = {i for i, entry in enumerate(entries) if f" {entry} " in spaced}
        assert Matcher(entries).find(text) == expected

    def test_counts_and_probabilities(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        texts: list[str | None] = [
            " ".join(rng.choice(["cat", "dog", "rare", "x", "Cat"], 3, p=[0.5, 0.2, 0.02, 0.2, 0.08]))
            for _ in range(400)
        ]
        texts += [None, "", "no match"]
        entries = ["cat", "dog", "rare", "never"]
        (tmp_path / "m.json").write_text(json.dumps(entries))
        t = 40
        counts = Counter(e for text in texts if text for e in entries if f" {e} " in padded(text))
        expected = []
        for i, text in enumerate(texts):
            miss = 1.0
            for entry in entries:
                if text and f" {entry} " in padded(text):
                    miss *= 1 - t / max(counts[entry], t)
            drawn = uniforms(words_of(pa.array([uid_from(i)]), salt_of("r", 3)))[0]
            if text is not None and drawn < 1 - miss:
                expected.append(i)
        rule = {"balance": "text", "entries": str(tmp_path / "m.json"), "t": t, "seed": 3}
        found = kept(tmp_path, texts, rule)
        assert found == expected
        assert {i for i, text in enumerate(texts) if text and "rare" in text} <= set(found)
        assert 3 * t > sum(1 for i in found if "cat" in (texts[i] or "").split()) > t / 2

        learned = json.loads((tmp_path / "pool" / layout.selection_file("e", "learned.json")).read_text())
        facts = learned["rules"]["r"]
        assert facts["entries"] == 4
        assert facts["entries_matched"] == 3
        assert facts["entries_thinned"] == sum(c > t for c in counts.values()) == 2

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "has no entries"),
            (b"[]", "has no entries"),
            (b'["a", 1]', "1 is not a text"),
            (b"[", "not a JSON list"),
            (b"\xff", "not UTF-8"),
        ],
    )
    def test_metadata_that_will_not_do(self, content: bytes, message: str) -> None:
        with pytest.raises(UserError, match=f"place: .*{message}"):
            read_entries(content, "place")

    def test_lines_or_json(self) -> None:
        assert read_entries(b"cat\n0\ncat\n\na b\n", "p") == ["cat", "0", "a b"]
        assert read_entries(b' ["cat", "0", "cat"]', "p") == ["cat", "0"]
