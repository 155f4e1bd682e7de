from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from curate.text.language import detect


def test_languages_and_types() -> None:
    texts = [
        "a photograph of a small red house",
        "ein Foto von einem kleinen roten Haus",
        "une photo d'une petite maison rouge",
        "小さな赤い家の写真です",
        "фотография маленького красного дома",
    ]
    lang, prob = detect(pa.array(texts))
    assert lang.to_pylist() == ["en", "de", "fr", "ja", "ru"]
    assert lang.type == pa.string()
    assert prob.type == pa.float32()
    assert all(0.4 < p <= 1.0 for p in prob.to_pylist())


@pytest.mark.parametrize("text", ["", "   ", "12345 !!", "\n", None])
def test_a_text_that_says_nothing_has_no_language(text: str | None) -> None:
    lang, prob = detect(pa.array([text], pa.string()))
    assert lang.to_pylist() == [None]
    assert prob.to_pylist() == [0.0]


def test_newlines_are_spaces_and_nothing_raises() -> None:
    one, prob_one = detect(pa.array(["a small\nred house"]))
    two, prob_two = detect(pa.array(["a small red house"]))
    assert (one, prob_one) == (two, prob_two)
    odd = ["\x00", "a\x00b", "\r\n\r", "🦊", "\u2028", "</s>", "x" * 100_000]
    assert len(detect(pa.array(odd))[0]) == len(odd)


def test_an_empty_array() -> None:
    lang, prob = detect(pa.array([], pa.string()))
    assert (len(lang), len(prob)) == (0, 0)


def test_the_declaration_in_many_languages(fixtures_dir: Path) -> None:
    wanted = {"eng": "en", "fra": "fr", "deu_1996": "de", "spa": "es", "rus": "ru", "jpn": "ja", "arb": "ar"}
    found = {}
    with zipfile.ZipFile(fixtures_dir / "filters/lang/udhr2.zip") as archive:
        for name in archive.namelist():
            match = re.fullmatch(r"(?:.*/)?([a-z0-9_]+)\.txt", name)
            if match and match[1] in wanted:
                text = archive.read(name).decode("utf-8")
                found[match[1]] = detect(pa.array([" ".join(text.split())[200:2000]]))[0][0].as_py()
    assert len(found) >= 5
    assert found == {code: wanted[code] for code in found}
