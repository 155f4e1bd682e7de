from __future__ import annotations

import io
import tarfile
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from curate.dataset.tars import images_of
from curate.errors import DataError
from curate.export.card import dataset_card, metadata, size_category
from curate.export.plan import cut
from curate.export.rows import as_dicts, in_order, selected
from curate.rules.account.reading import rules_of
from curate.text.numbers import percent


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 15))
def test_cut_is_the_concatenation_in_slices(totals: list[int], size: int) -> None:
    names = [f"{i:05d}" for i in range(len(totals))]
    everything = [(name, row) for name, total in zip(names, totals, strict=True) for row in range(total)]
    slices = [everything[i : i + size] for i in range(0, len(everything), size)]
    found = list(cut(names, np.array(totals, np.int64), size))
    assert [[(p.shard, r) for p in pieces for r in range(p.start, p.stop)] for pieces in found] == slices
    assert all(p.start < p.stop for pieces in found for p in pieces)


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.data())
def test_selected_against_a_list(repeats: list[int], data: st.DataObject) -> None:
    uids = [f"{i:032x}" for i in range(0, 3 * len(repeats), 3)]
    samples = pa.table(
        {"uid": [f"{i:032x}" for i in range(3 * len(repeats))], "n": list(range(3 * len(repeats)))}
    )
    selection = pa.table({"uid": uids, "repeats": pa.array(repeats, pa.int32())})
    rows = []
    for uid, n in zip(uids, repeats, strict=True):
        rows += [(uid, int(uid, 16), uid if n == 1 else f"{uid}-{j}") for j in range(n)]
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    table = selected(samples, selection, start, stop)
    found = list(zip(*(table[c].to_pylist() for c in ("uid", "n", "key")), strict=True))
    assert found == rows[start:stop]


def test_selected_says_what_does_not_fit() -> None:
    samples = pa.table({"uid": ["a", "b"]})
    with pytest.raises(DataError, match="keeps c, which is not among the images"):
        selected(samples, pa.table({"uid": ["a", "c"], "repeats": pa.array([1, 1], pa.int32())}), 0, 2)
    with pytest.raises(DataError, match="2 rows, not 3"):
        selected(samples, pa.table({"uid": ["a", "b"], "repeats": pa.array([1, 1], pa.int32())}), 0, 3)


def test_chunked_columns_are_fine() -> None:
    samples = pa.table({"uid": pa.chunked_array([["a"], ["b", "c"]])})
    selection = pa.table({"uid": pa.chunked_array([["a"], ["c"]]), "repeats": pa.array([1, 2], pa.int32())})
    assert selected(samples, selection, 0, 3)["key"].to_pylist() == ["a", "c-0", "c-1"]


def test_values_for_json() -> None:
    table = pa.table({"a": pa.array([0.3, None, float("nan")], pa.float32()), "b": ["x", None, "z"]})
    first, second, third = as_dicts(table, ["a", "b"])
    assert first == {"a": 0.3, "b": "x"}
    assert second == {"a": None, "b": None}
    assert third["a"] != third["a"]


def test_in_order() -> None:
    assert in_order(["z", "similarity", "text", "uid"]) == ["uid", "text", "similarity", "z"]
    assert in_order(["z"]) == ["uid", "z"]


def _tar(names: list[str]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    out.seek(0)
    return out


def test_images_are_found_in_one_pass() -> None:
    stream = _tar(["a.txt", "a.jpg", "b.json", "b.webp", "c.txt", "d.png", "e.jpg", "f.jpg"])
    found = list(images_of(stream, ["b", "c", "d", "dd"], "x"))
    assert found == [("b", "webp", b"b.webp"), ("d", "png", b"d.png")]


def test_reading_stops_after_the_last_wanted_image() -> None:
    stream = _tar([f"{i:04d}.jpg" for i in range(500)])
    assert [uid for uid, _, _ in images_of(stream, ["0003"], "x")] == ["0003"]
    assert stream.tell() < 10_000
    assert list(images_of(_tar(["a.jpg"]), [], "x")) == []


def test_unordered_and_broken_tars_are_errors() -> None:
    with pytest.raises(DataError, match="not in uid order"):
        list(images_of(_tar(["b.jpg", "a.jpg"]), ["a", "b"], "x"))
    with pytest.raises(DataError, match="cannot be read as a tar"):
        list(images_of(io.BytesIO(b"no tar" * 200), ["a"], "x"))


def test_size_categories() -> None:
    rows = [0, 999, 1000, 5 * 10**6, 10**10, 10**13]
    assert [size_category(n) for n in rows] == ["n<1K", "n<1K", "1K<n<10K", "1M<n<10M", "10B<n<100B", "n>1T"]


def _words(kind: str, expression: str, **more: str) -> str:
    (rule,) = rules_of({"rules": [{"rule": "r", "kind": kind, "expression": expression, **more}]})
    return f"{rule.words} {rule.sql}".strip()


def test_rules_in_words() -> None:
    assert _words("where", "a > 1", words="a > 1") == "samples that satisfy a > 1"
    best = "the 30 % of all samples with the highest s"
    assert _words("top", "highest 0.3 by s", words=best) == best
    assert _words("dedup", "one row per sha256, highest s") == "one row per sha256, highest s"
    assert _words("experiment", "kept by basic") == "kept by basic"
    assert _words("balance", "anything") == "anything"


def test_percent() -> None:
    assert [percent(x) for x in (1, 0.3, 0.025, 0.00013, 0)] == ["100 %", "30 %", "2.5 %", "0.013 %", "0 %"]


def test_rules_of_is_tolerant() -> None:
    (rule,) = rules_of({"rules": [{"rule": "a", "passed": 3}]})
    assert (rule.name, rule.kind, rule.passed, rule.failed, rule.threshold) == ("a", "", 3, None, None)
    assert rules_of({}) == []


def test_hostile_text_stays_in_its_cell() -> None:
    funnel = {
        "description": "a\n# b",
        "rules": [{"rule": "x|y", "kind": "where", "expression": "a = '`|`'\n or b"}],
    }
    facts = metadata(
        experiment="e", steps=[], funnel=funnel, models={}, columns={}, sizes={}, tars=True, digest=""
    )
    lines = dataset_card(facts).splitlines()
    assert "a # b" in lines
    assert "| `x\\|y` | samples that satisfy `` a = '`\\|`' or b `` |  |  |  |  |" in lines


TEXTS = st.text(st.sampled_from(" \n\t`*_[]()<>&|\\#-+=~!.)1ab:/\"'"), max_size=14)


@settings(deadline=None, max_examples=300)
@given(TEXTS, TEXTS, TEXTS)
def test_texts_of_a_card_are_shown_as_they_are(about: str, rule: str, sql: str) -> None:
    """Whatever Markdown and HTML would make of them."""
    funnel = {
        "description": about,
        "keep": "all(a)",
        "rules": [
            {"rule": rule, "kind": "top", "expression": "x", "words": sql, "passed": 1},
            {"rule": "a", "kind": "where", "expression": sql, "passed": 1},
        ],
    }
    facts = metadata(
        experiment="e",
        steps=[],
        funnel=funnel,
        models={},
        columns={about: about},
        sizes={},
        tars=True,
        digest="",
    )
    card = dataset_card(facts).partition("\n---\n")[2]
    page = Rendered(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(card))
    assert page.tags <= {"h1", "h2", "p", "strong", "code", "table", "thead", "tbody", "tr", "th", "td"}
    shown = [plain(cell) for cell in page.cells]
    assert shown[:12] == [
        *("rule", "keeps", "passed", "failed", "no score", "cut at"),
        *(plain(rule), plain(sql), "1", "", "", ""),
    ]
    assert shown[12:18] == ["a", plain(f"samples that satisfy {sql}"), "1", "", "", ""]
    assert shown[21:23] == [plain(about), plain(about)]
    assert plain(page.paragraphs[0]).startswith(plain(about))


def plain(text: str) -> str:
    return " ".join(text.split())


class Rendered(HTMLParser):
    """Tags of a page, and the texts of its paragraphs and cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.paragraphs: list[str] = []
        self._texts = self.paragraphs
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)
        if tag in ("p", "td", "th"):
            self._texts = self.paragraphs if tag == "p" else self.cells
            self._texts.append("")

    def handle_data(self, data: str) -> None:
        if self._texts:
            self._texts[-1] += data
