"""Words and lengths of many texts at once against Python's own."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.text import counts
from curate.text.counts import lengths, word_counts

SPACES = [chr(c) for c in range(0x110000) if chr(c).isspace()]
# Characters that share bytes with white space, and some that only look like it.
NEAR = [
    "\u200b",
    "\ufeff",
    "\u180e",
    "\x00",
    "\x84",
    "\xa1",
    "\u2007b",
    "é",
    "…",
    "“",
    "。",
    "東",
    "😀",
    "a",
    "bc",
]
texts = st.lists(st.one_of(st.none(), st.lists(st.sampled_from(SPACES + NEAR)).map("".join), st.text()))


@settings(deadline=None)
@given(texts)
@example([None, "", " ", "a", " a ", "a b", "\u3000", "a\u2003b", None, "x" * 600, "x " * 600, "\x85a\xa0"])
def test_words_and_lengths_are_pythons(values: list[str | None]) -> None:
    values = [v if v is None else v.encode("utf-8", "ignore").decode() for v in values]
    array = pa.array(values, pa.string())
    assert word_counts(array).to_pylist() == [None if v is None else len(v.split()) for v in values]
    assert lengths(array).to_pylist() == [None if v is None else len(v) for v in values]


@settings(deadline=None)
@given(texts, st.integers(0, 5), st.integers(1, 40))
def test_slices_chunks_and_blocks_change_nothing(values: list[str | None], start: int, block: int) -> None:
    values = [v if v is None else v.encode("utf-8", "ignore").decode() for v in values]
    whole = pa.array([*values, "in  front", None, "of it"], pa.string())
    parts = pa.chunked_array([whole[start : start + 3], whole[start + 3 :], whole[:0]], pa.string())
    before, counts._AT_ONCE = counts._AT_ONCE, block
    try:
        found = word_counts(parts)
    finally:
        counts._AT_ONCE = before
    assert found.to_pylist() == [None if v is None else len(v.split()) for v in parts.to_pylist()]
    assert found.type == pa.int32()
