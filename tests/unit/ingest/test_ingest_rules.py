from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import ada_url
import ftfy
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.ingest.rules import (
    LAION_MAX_CHARS,
    Rules,
    clean_text,
    hosts,
    judge,
    normal_domain,
    read_domains,
    uid_column,
)
from curate.reasons import IngestReason


def batch(*rows: tuple[Any, Any], **columns: list[Any]) -> pa.RecordBatch:
    url, text = zip(*rows, strict=True)
    fields = {"url": pa.array(url, pa.string()), "text": pa.array(text, pa.string())}
    return pa.RecordBatch.from_pydict(fields | {name: pa.array(v) for name, v in columns.items()})


def one(url: str, text: str = "a photo", **rules: Any) -> list[str]:
    kept, counts = judge(batch((url, text)), Rules(**rules))
    assert kept.num_rows + sum(counts.values()) == 1
    return list(counts)


@pytest.mark.parametrize(
    ("url", "text", "rules", "reason"),
    [
        ("https://e.com/a.jpg", "a photo", {}, []),
        ("", "a photo", {}, ["no_url"]),
        ("https://e.com/a.jpg", "", {}, ["no_text"]),
        ("https://e.com/a.jpg", " \u00a0\u3000", {}, ["no_text"]),
        ("https://e.com/a.jpg", "1234", {"min_text_length": 5}, ["text_too_short"]),
        ("https://e.com/a.jpg", " 1234  ", {"min_text_length": 5}, ["text_too_short"]),
        ("https://e.com/a.jpg", "日本の写真", {"min_text_length": 5}, []),
        ("https://e.com/a.jpg", "日本の写真", {"max_text_length": 4}, ["text_too_long"]),
        ("https://e.com/a.jpg", "x", {"max_url_length": 18}, ["url_too_long"]),
        ("https://e.com/a.jpg", "x", {"max_url_length": 19}, []),
        ("https://e.com/a.SVG?x", "x", {"blocked_extensions": [".svg"]}, ["blocked_extension"]),
        ("https://e.com/a.svg#x", "x", {"blocked_extensions": ["gif", "svg"]}, ["blocked_extension"]),
        ("https://e.com/a.svgz", "x", {"blocked_extensions": ["svg"]}, []),
        ("https://e.com/svg", "x", {"blocked_extensions": ["svg"]}, []),
        ("https://e.com/a.jpg?b=.svg", "x", {"blocked_extensions": ["svg"]}, []),
        ("https://e.svg", "x", {"blocked_extensions": ["svg"]}, []),
        ("https://e.svg/", "x", {"blocked_extensions": ["svg"]}, []),
        ("https://e.com/?u=Data:image", "x", {"blocked_url_substrings": ["data:image"]}, ["blocked_url"]),
        ("https://e.com/a+b.jpg", "x", {"blocked_url_substrings": ["a+b"]}, ["blocked_url"]),
        ("https://e.com/aab.jpg", "x", {"blocked_url_substrings": ["a+b"]}, []),
        ("https://e.com/a.jpg", "x", {"blocked_domains": {"e.com"}}, ["blocked_domain"]),
        ("https://a.b.E.com:8080/", "x", {"blocked_domains": {"*.E.com."}}, ["blocked_domain"]),
        ("https://notE.com/e.com", "x", {"blocked_domains": {"e.com"}}, []),
        ("https://e.com.evil.org/", "x", {"blocked_domains": {"e.com"}}, []),
        ("https://user:x@e.com/", "x", {"blocked_domains": {"e.com"}}, ["blocked_domain"]),
        ("https://e.com@good.org/", "x", {"blocked_domains": {"e.com"}}, []),
        ("https:/\\e.com/a", "x", {"blocked_domains": {"e.com"}}, ["blocked_domain"]),
        ("https://e.com\\@good.org/", "x", {"blocked_domains": {"e.com"}}, ["blocked_domain"]),
        ("https://bücher.example/", "x", {"blocked_domains": {"xn--bcher-kva.example"}}, ["blocked_domain"]),
        ("https://XN--BCHER-KVA.example/", "x", {"blocked_domains": {"bücher.example"}}, ["blocked_domain"]),
        ("https://0x7f.1/", "x", {"blocked_domains": {"127.0.0.1"}}, ["blocked_domain"]),
    ],
)
def test_rules(url: str, text: str, rules: dict[str, Any], reason: list[str]) -> None:
    assert one(url, text, **rules) == reason


def test_the_first_failing_rule_is_the_reason() -> None:
    rules = {
        "min_text_length": 5,
        "max_url_length": 10,
        "blocked_extensions": ["svg"],
        "blocked_domains": {"e.com"},
    }
    assert one("https://e.com/a.svg", "x", **rules) == [IngestReason.TEXT_TOO_SHORT]
    assert one("https://e.com/a.svg", "long enough", **rules) == [IngestReason.URL_TOO_LONG]
    assert one("https://e.com/a.svg", "long enough", **rules | {"max_url_length": 99}) == [
        IngestReason.BLOCKED_EXTENSION
    ]


def test_opt_out_is_used_where_the_source_has_it() -> None:
    rows = [("https://e.com/1", "a"), ("https://e.com/2", "b"), ("https://e.com/3", "c")]
    marked = batch(*rows, opt_out=[True, False, None])
    kept, counts = judge(marked, Rules(drop_opt_out=True))
    assert kept["url"].to_pylist() == ["https://e.com/2", "https://e.com/3"]
    assert counts == {"opt_out": 1}
    assert judge(marked, Rules())[0].num_rows == 3
    assert judge(batch(*rows), Rules(drop_opt_out=True))[0].num_rows == 3


def test_language_is_judged_last_and_kept_as_columns() -> None:
    rows = batch(
        ("https://e.com/1", "a red house beside the river in the morning"),
        ("https://e.com/2", "ein rotes Haus am Fluss in der Morgensonne"),
        ("https://e.com/3", "12345 !!"),
        ("https://e.com/4", ""),
    )
    kept, counts = judge(rows, Rules(languages={"en", "fr"}))
    assert kept["lang"].to_pylist() == ["en"]
    assert kept.schema.field("lang_score").type == pa.float32()
    assert counts == {IngestReason.LANGUAGE: 2, IngestReason.NO_TEXT: 1}
    assert judge(rows, Rules(languages={"en"}, min_language_probability=1.0))[0].num_rows == 0
    given_lang = rows.append_column("lang", pa.array(["xx", "en", None, "en"]))
    assert judge(given_lang, Rules(languages=["en"]))[0]["url"].to_pylist() == ["https://e.com/2"]


def test_an_empty_batch_stays_one() -> None:
    empty = batch(("https://e.com/", "x")).slice(0, 0)
    kept, counts = judge(empty, Rules(languages={"en"}, blocked_domains=frozenset({"e.com"})))
    assert kept.num_rows == 0
    assert counts == Counter()


TEXT = st.text(max_size=30)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.none(), TEXT), st.one_of(st.none(), TEXT)), min_size=1, max_size=20),
    st.integers(0, 6),
    st.integers(0, 10),
    st.integers(0, 20),
)
def test_kept_and_dropped_add_up_and_agree_with_a_plain_loop(
    rows: list[tuple[str | None, str | None]], low: int, high: int, longest: int
) -> None:
    def reason(url: str | None, text: str | None) -> str | None:
        if not url:
            return "no_url"
        if not text or not text.strip():
            return "no_text"
        if len(text.strip()) < low:
            return "text_too_short"
        if len(text) > high:
            return "text_too_long"
        return "url_too_long" if len(url) > longest else None

    rules = Rules(min_text_length=low, max_text_length=high, max_url_length=longest)
    # Arrow and Python disagree on whether the C0 separators and U+0085 are white space.
    if any(c in "\x1c\x1d\x1e\x1f\x85" for _, text in rows for c in text or ""):
        return
    kept, counts = judge(batch(*rows), rules)
    expected = [reason(*row) for row in rows]
    assert kept.num_rows == expected.count(None)
    assert counts == Counter(found for found in expected if found)


@given(st.lists(st.tuples(st.text(), st.text())))
def test_uid_is_the_md5_of_text_and_url(rows: list[tuple[str, str]]) -> None:
    texts, urls = ([row[at] for row in rows] for at in (0, 1))
    expected = [hashlib.md5((text + url).encode()).hexdigest() for text, url in rows]
    assert uid_column(pa.array(texts, pa.string()), pa.array(urls, pa.string())).to_pylist() == expected


def test_uid_of_a_known_pair_and_of_null() -> None:
    text, url = "496", "http://0pointer.de/photos/galleries/Australia/lq/img-496.jpg"
    uids = uid_column(pa.array([text, None]), pa.array([url, url]))
    assert uids.to_pylist() == ["868b27a2502929f2eac787ec0bddd8e7", None]


def test_clean_text_none_changes_nothing() -> None:
    texts = pa.array([" a\nb ", None])
    assert clean_text(texts, "none") is texts
    with pytest.raises(ValueError, match="'none' or 'laion'"):
        clean_text(texts, "other")


def test_clean_text_laion() -> None:
    texts = ["two\nlines ", "schÃ¶n", "&amp; co", "a\u00a0b\u200bc", "x" * 3000, None, "", "\x1b[31mred\x07"]
    cleaned = clean_text(pa.array(texts), "laion").to_pylist()
    assert cleaned == ["two lines", "schön", "& co", "abc", "x" * LAION_MAX_CHARS, None, "", "red"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(TEXT, st.text(st.characters(min_codepoint=9, max_codepoint=127)), st.none())))
def test_clean_text_laion_agrees_with_a_slow_oracle(texts: list[str | None]) -> None:
    def slow(text: str) -> str:
        fixed = ftfy.fix_text(text.replace("\n", " ")).strip()
        return "".join(c for c in fixed if c.isprintable())[:2000]

    expected = [None if text is None else slow(text) for text in texts]
    assert clean_text(pa.array(texts, pa.string()), "laion").to_pylist() == expected


@settings(max_examples=300)
@given(
    st.sampled_from(["http://", "https://", "HTTP:", "https:/\\", "http://u:p@"]),
    st.text("abcEX019.-_~ü%[]:@ \t\\x", max_size=14),
    st.sampled_from(["", "/a.jpg", "?q", "#f", ":80/", "\\@other.org/"]),
)
@example("http://", "0.. ", "")
def test_hosts_agree_with_the_url_standard(start: str, host: str, rest: str) -> None:
    url = start + host + rest
    try:
        expected = ada_url.URL(url).hostname.rstrip(".") or None
    except ValueError:
        expected = None
    assert hosts(pa.array([url, None])).to_pylist() == [expected, None]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("Example.COM", "example.com"),
        (" .example.com. ", "example.com"),
        ("*.bücher.example", "xn--bcher-kva.example"),
        ("0x7f.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
    ],
)
def test_normal_domain(domain: str, expected: str) -> None:
    assert normal_domain(domain) == expected


@pytest.mark.parametrize(
    "domain", ["", ".", "*", "a b", "https://e.com/", "e.com/x", "a@b", "e.com:80", "[::1"]
)
def test_what_is_no_domain_is_the_users_to_mend(domain: str) -> None:
    with pytest.raises(UserError, match=r"blocked_domains: entry 1, .* is not a domain"):
        Rules(blocked_domains=frozenset({domain}))


def test_read_domains(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt.gz"
    path.write_bytes(gzip.compress("# ours\nE.com  # bad\n\n.bücher.example\n".encode()))
    assert read_domains(str(path)) == {"e.com", "xn--bcher-kva.example"}
    path.with_suffix("").write_text("good.org\nno domain\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"blocked\.txt: entry 2, 'no domain'"):
        read_domains(str(path.with_suffix("")))
    with pytest.raises(UserError, match="cannot read the list of domains"):
        read_domains(str(tmp_path / "none.txt"))
