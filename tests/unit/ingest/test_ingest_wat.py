from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections import Counter
from pathlib import Path

import ada_url
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.ingest import wat as module
from curate.ingest.wat import iter_wat_batches, page_base, resolve
from curate.reasons import IngestReason
from tests.unit.ingest.wat_files import PAGE, gzip_records, img, page, read, warc_record, wat

THREE = wat(*(page([img(f"https://e.com/{n}.jpg", f"photo {n}")]) for n in range(3)))


def urls(data: bytes) -> list[str]:
    return [row["url"] for row in read(data)[0]]


def test_a_row_carries_its_link_and_its_page() -> None:
    head = {
        "Title": "the page",
        "Metas": [{"name": "Robots", "content": "index, NOAI"}],
        "Base": "/deep/",
    }
    links = [
        {"path": "A@/href", "url": "http://creativecommons.org/licenses/by/4.0/", "text": "CC"},
        img("x.jpg", " alt ", title="its title"),
    ]
    rows, counts = read(wat(page(links, head)))
    assert counts == {}
    assert rows == [
        {
            "url": "https://www.example.org/deep/x.jpg",
            "text": " alt ",
            "title": "its title",
            "page_url": PAGE,
            "source": "crawl.warc.gz",
            "licence": "http://creativecommons.org/licenses/by/4.0/",
            "opt_out": True,
        }
    ]


@pytest.mark.parametrize(
    ("head", "headers", "expected"),
    [
        ({}, {}, False),
        ({"Metas": [{"name": "robots", "content": "index,follow"}]}, {}, False),
        ({"Metas": [{"name": "robots", "content": "noimageai"}]}, {}, True),
        ({"Metas": [{"name": "description", "content": "noai"}]}, {}, False),
        ({"Metas": [{"name": "robots", "content": "noaim"}]}, {}, False),
        ({"Metas": [{"content": "noai"}, 3, {"name": "ROBOTS", "content": "x, noai"}]}, {}, True),
        ({}, {"X-Robots-Tag": "noai, noimageai"}, True),
        ({}, {"x-robots-tag": ["all", "somebot: noai"]}, True),
        ({}, {"X-Other": "noai"}, False),
    ],
)
def test_opt_out(head: dict[str, object], headers: dict[str, object], expected: bool) -> None:
    rows, _ = read(wat(page([img("https://e.com/a.jpg")], head, headers=headers)))
    assert [row["opt_out"] for row in rows] == [expected]


def test_licence_may_come_after_the_image_or_in_the_head() -> None:
    cc = "https://creativecommons.org/publicdomain/zero/1.0/"
    after = page([img("https://e.com/a.jpg"), {"path": "A@/href", "url": cc}])
    in_head = page([img("https://e.com/b.jpg")], {"Link": [{"path": "LINK@/href", "url": cc}]})
    badge_only = page([img("https://creativecommons.org/images/badge.png")])
    assert [row["licence"] for row in read(wat(after, in_head, badge_only))[0]] == [cc, cc, None]


def test_every_image_link_is_a_row_or_has_a_reason() -> None:
    links = [
        img("https://e.com/a.jpg"),
        img("https://e.com/a.jpg", ""),
        {"path": "IMG@/src", "url": "https://e.com/a.jpg"},
        {"path": "IMG@/src", "alt": "x"},
        img(" "),
        img("data:image/gif;base64,AAAA"),
        img("javascript:void(0)"),
        img("http://[broken"),
        img("rel.jpg"),
        {"path": "A@/href", "url": "https://e.com/"},
    ]
    rows, counts = read(wat(page(links), page(links, url="no url")))
    assert len(rows) == 3  # the page without a URL has nothing to resolve rel.jpg against
    assert counts == {
        IngestReason.NO_TEXT: 4,
        IngestReason.NO_URL: 4,
        IngestReason.BAD_SCHEME: 4,
        IngestReason.BAD_URL: 3,
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b"null",
        b"{}",
        b'{"Envelope": 5}',
        b'{"Envelope": {}} trailing',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        json.dumps(page([img("https://e.com/cut.jpg")])).encode()[:-3],
    ],
)
def test_a_broken_record_costs_that_record(body: bytes) -> None:
    whole = page([img("https://e.com/a.jpg")])
    rows, counts = read(wat(whole, body, whole))
    assert len(rows) == 2
    assert counts == {IngestReason.UNREADABLE_RECORD: 1}


@pytest.mark.parametrize(
    "links", [None, 5, "x", {}, [None, 1, [], "IMG@/src", {"path": 1, "url": [], "alt": {}}]]
)
def test_values_of_another_type_are_no_links(links: object) -> None:
    odd = page(links)  # type: ignore[arg-type]
    odd["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]["HTML-Metadata"]["Head"] = [1]
    assert read(wat(odd, page([img("https://e.com/a.jpg")])))[1] == {}


def test_a_very_long_record_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORD_BYTES", 2000)
    long = page([img("https://e.com/a.jpg", "x" * 2000)])
    rows, counts = read(wat(long, page([img("https://e.com/b.jpg")])))
    assert [row["url"] for row in rows] == ["https://e.com/b.jpg"]
    assert counts == {IngestReason.UNREADABLE_RECORD: 1}


def escaped(value: object) -> bytes:
    """JSON in ASCII, with lone surrogates escaped."""
    return json.dumps(value).encode()


def test_half_a_surrogate_pair_costs_nothing() -> None:
    links = [
        img("https://e.com/1.jpg", "a\ud800b"),
        img("https://e.com/\udfff.jpg", "\udc00\ud800"),
        img("/\ud83d.jpg", "rel"),
        img("https://e.com/4.jpg", "\U0001f600", title="\ud83dx"),
        img("https://e.com/5.jpg", "a \\ud800 that is spelt out"),
    ]
    rows, counts = read(wat(escaped(page(links, url="https://p.example/\ud800"))))
    assert counts == {}
    assert [(row["url"], row["text"]) for row in rows] == [
        ("https://e.com/1.jpg", "a\ufffdb"),
        ("https://e.com/\ufffd.jpg", "\ufffd\ufffd"),
        ("https://p.example/%EF%BF%BD.jpg", "rel"),
        ("https://e.com/4.jpg", "\U0001f600"),
        ("https://e.com/5.jpg", "a \\ud800 that is spelt out"),
    ]
    assert rows[3]["title"] == "\ufffdx"
    assert {row["page_url"] for row in rows} == {"https://p.example/\ufffd"}


@pytest.mark.parametrize("broken", ["\ud800", "@bad utf-8@", "@control@"])
@pytest.mark.parametrize("where", ["links", "meta", "header", "licence", "title"])
def test_a_broken_string_hides_no_opt_out_and_no_licence(where: str, broken: str) -> None:
    links = [img("https://e.com/1.jpg", broken if where == "links" else "x")]
    metas = [
        {"name": "x", "content": broken if where == "meta" else ""},
        {"name": "robots", "content": "noai"},
    ]
    link = [{"path": "LINK@/href", "url": "https://creativecommons.org/licenses/by/4.0/"}]
    link += [{"path": "x", "url": broken}] if where == "licence" else []
    headers = {"A": broken if where == "header" else "", "X-Robots-Tag": "noimageai"}
    for head, by in (({"Metas": metas, "Link": link}, {}), ({"Link": link}, headers)):
        body = escaped(page(links, {**head, "Title": broken if where == "title" else ""}, headers=by))
        body = body.replace(b"@bad utf-8@", b"\xff\xfe").replace(b"@control@", b"\x01")
        rows, counts = read(wat(body))
        assert [(row["opt_out"], row["licence"]) for row in rows] == [(True, link[0]["url"])]
        assert counts == {}


@pytest.mark.parametrize("number", ["7", "1e999", "9" * 400, "9" * 5000, "-0.0", "NaN", "true"])
def test_a_number_is_no_text_and_no_url_and_costs_its_link(number: str) -> None:
    body = escaped(page([img("https://e.com/1.jpg", "@"), img("@", "x"), img("https://e.com/2.jpg", "y")]))
    rows, counts = read(wat(body.replace(b'"@"', number.encode())))
    assert [row["text"] for row in rows] == ["y"]
    assert counts == {IngestReason.NO_TEXT: 1, IngestReason.NO_URL: 1}


def test_zeros_and_very_long_texts_are_kept() -> None:
    rows, counts = read(
        wat(page([img("https://e.com/1.jpg", "a\0b"), img("https://e.com/2.jpg", "x" * 5_000_000)]))
    )
    assert [row["text"] for row in rows] == ["a\0b", "x" * 5_000_000]
    assert counts == {}


STRINGS = st.lists(
    st.one_of(
        st.text(max_size=3),
        st.integers(0xD800, 0xDFFF).map(chr),
        st.sampled_from(["\\", '"', "\\u", "d800", "\x00", "\x1f", "\n"]),
    ),
    max_size=8,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(STRINGS, STRINGS, st.booleans())
def test_strings_are_those_of_a_browser(alt: str, title: str, ascii_only: bool) -> None:
    value = page([img("https://e.com/1.jpg", f"x{alt}", title=title)])
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    if not ascii_only and any(0xD800 <= ord(char) <= 0xDFFF for char in alt + title):
        return  # unescaped, they are bytes that are not UTF-8
    rows, counts = read(wat(body))
    # What UTF-16 cannot hold becomes U+FFFD; escapes of a pair are the character.
    said = json.loads(body)["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]["HTML-Metadata"][
        "Links"
    ][0]
    assert [rows[0]["text"], rows[0]["title"]] == [
        "".join("\ufffd" if 0xD800 <= ord(char) <= 0xDFFF else char for char in said[key])
        for key in ("alt", "title")
    ]
    assert counts == {}


@pytest.mark.parametrize("pack", [bytes, gzip_records, lambda data: gzip.compress(data, mtime=0)])
def test_packing_does_not_matter(pack: type[bytes]) -> None:
    assert read(pack(THREE)) == read(THREE)
    assert urls(THREE) == [f"https://e.com/{n}.jpg" for n in range(3)]


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_batches_hold_at_most_batch_rows(rows: int) -> None:
    data = wat(page([img(f"https://e.com/{n}.jpg") for n in range(5)]), page([img("https://e.com/z.jpg")]))
    assert read(data, rows) == read(data)


@pytest.mark.parametrize("pack", [bytes, gzip_records, lambda data: gzip.compress(data, mtime=0)])
def test_a_file_cut_anywhere_keeps_what_came_before_and_says_so(pack: type[bytes]) -> None:
    data = pack(THREE)
    everything, _ = read(data)
    # Where a cut cannot be seen: between two records, or in the line ends behind one.
    ends = (
        {len(gzip_records(THREE[: at.end])) for at in _record_ends(THREE)} if pack is gzip_records else set()
    )
    if pack is bytes:
        ends = {at.end - slack for at in _record_ends(THREE) for slack in range(5)}
    for cut in range(len(data)):
        rows, counts = read(data[:cut])
        assert rows == everything[: len(rows)]
        assert counts == ({} if cut in ends else {IngestReason.TRUNCATED_INPUT: 1}), cut


class _RecordEnd(int):
    @property
    def end(self) -> int:
        return int(self)


def _record_ends(data: bytes) -> list[_RecordEnd]:
    starts = [0]
    while (found := data.find(b"WARC/1.0\r\n", starts[-1] + 1)) > 0:
        starts.append(found)
    return [_RecordEnd(start) for start in [*starts[1:], len(data)]]


@pytest.mark.parametrize("pack", [bytes, gzip_records, lambda data: gzip.compress(data, mtime=0)])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_never_raises(pack: type[bytes], data: st.DataObject) -> None:
    whole = bytearray(pack(THREE))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
        if not whole:
            break
    rows, counts = read(bytes(whole))
    assert len(rows) <= 3
    assert all(count > 0 and reason in set(IngestReason) for reason, count in counts.items())


def test_a_failing_store_is_not_a_truncated_file() -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 600:
                raise ConnectionResetError("the store went away")
            return super().read(min(size or 600, 600))

    counts: Counter[str] = Counter()
    with pytest.raises(ConnectionResetError, match="the store went away"):
        list(iter_wat_batches(Breaks(THREE), batch_rows=10, counts=counts))
    with pytest.raises(FileNotFoundError):
        list(iter_wat_batches("/nowhere/x.wat.gz", batch_rows=10, counts=counts))
    assert counts == {}


def test_memory_does_not_grow_with_the_file() -> None:
    record = gzip.compress(
        warc_record(json.dumps(page([img("https://e.com/a.jpg", "x" * 1000)] * 50)).encode())
    )

    class Endless(io.RawIOBase):
        """A gzip file of ``left`` records that exists only as it is read."""

        left = 0
        rest = b""

        def read(self, size: int = -1, /) -> bytes:
            while len(self.rest) < size and self.left:
                self.rest += record
                self.left -= 1
            data, self.rest = self.rest[:size], self.rest[size:]
            return data

    def peak(records: int) -> int:
        stream = Endless()
        stream.left = records
        tracemalloc.start()
        total = sum(b.num_rows for b in iter_wat_batches(stream, batch_rows=500, counts=Counter()))  # type: ignore[arg-type]
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == 50 * records
        return held

    peak(10)
    assert peak(2000) < peak(200) + (8 << 20)  # 2000 records are 100 MB of text


def test_resolve_agrees_with_the_standard(fixtures_dir: Path) -> None:
    cases = json.loads((fixtures_dir / "filters/url/urltestdata.json").read_text(encoding="utf-8"))
    checked = 0
    for case in cases:
        if not isinstance(case, dict) or any(0xD800 <= ord(c) <= 0xDFFF for c in case["input"]):
            continue
        got = resolve(case["input"], case["base"])
        if case.get("failure"):
            # A data: URL is refused before it is parsed, and is an error either way.
            assert got in (IngestReason.BAD_URL, IngestReason.BAD_SCHEME), case
        elif case["protocol"] not in ("http:", "https:"):
            assert got is IngestReason.BAD_SCHEME, case
        elif case["input"].startswith(("http://", "https://")):
            assert got == case["input"], case
        else:
            assert got == case["href"], case
        checked += 1
    assert checked > 800


SEGMENT = st.text("abcXYZ019-_~!$&'()*+,;=@", min_size=1, max_size=6).filter(lambda s: s.strip("."))


def _oracle(relative: str, page_url: str) -> str:
    """RFC 3986 resolution of a path without odd characters, written out slowly."""
    origin, _, path = page_url.partition("://")
    host, _, path = path.partition("/")
    if relative.startswith("//"):
        return f"{origin}:{relative}"
    parts = [] if relative.startswith("/") else path.split("/")[:-1]
    names = relative.removeprefix("/").split("/")
    for at, name in enumerate(names):
        last = at == len(names) - 1
        if name == "..":
            parts = parts[:-1]
        elif name != ".":
            parts.append(name)
            continue
        if last:
            parts.append("")
    return f"{origin}://{host}/{'/'.join(parts)}"


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(SEGMENT, st.sampled_from(["..", "."])), min_size=1, max_size=6),
    st.sampled_from(["", "/"]),
    st.lists(SEGMENT, min_size=0, max_size=4),
)
@example(["..", "..", "x"], "", ["a"])
def test_resolve_agrees_with_a_slow_oracle(names: list[str], root: str, below: list[str]) -> None:
    relative = root + "/".join(names)
    page_url = "https://www.example.org/" + "/".join(below)
    assert resolve(relative, page_url) == _oracle(relative, page_url)


HOST = st.lists(
    st.one_of(
        st.text("az09-", min_size=1, max_size=4),
        st.sampled_from(
            ["xn--", "xn--a", "xn--bcher-kva", "0x7f", "com", "1", "a" * 70, "", "%2e", "\u00fc", "A"]
        ),
    ),
    min_size=1,
    max_size=5,
).map(".".join)


@settings(max_examples=1000, deadline=None)
@given(
    st.sampled_from(["http://", "https://"]),
    HOST,
    st.text(max_size=6),
    st.text(st.characters(codec="utf-8"), max_size=9),
)
def test_an_absolute_url_is_kept_if_the_standard_knows_it(
    scheme: str, host: str, sign: str, rest: str
) -> None:
    for url in {f"{scheme}{host}{end}{rest}" for end in ("", "/", "?", "#", ":80/", "@", "\\", "\n", sign)}:
        rows, counts = read(wat(page([img(url)])))
        expected = {} if ada_url.URL.can_parse(url) else {IngestReason.BAD_URL: 1}
        assert counts == expected, url
        assert [row["url"] for row in rows] == ([] if expected else [url])


@given(st.text(max_size=40), st.one_of(st.none(), st.text(max_size=20), st.just(PAGE)))
def test_resolve_never_raises_and_gives_http_only(url: str, base: str | None) -> None:
    got = resolve(url, page_base(base, None))
    assert isinstance(got, IngestReason) or got.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("page_url", "base", "expected"),
    [
        (PAGE, None, PAGE),
        (PAGE, "", PAGE),
        (PAGE, "../x/", "https://www.example.org/a/x/"),
        (PAGE, "//cdn.example/", "https://cdn.example/"),
        (PAGE, "http://exa mple/", PAGE),
        (PAGE, " JavaScript:alert(1)", PAGE),
        (PAGE, "data:text/html,x", PAGE),
        (None, "https://b.example/x", "https://b.example/x"),
        ("<https://e.com/>", None, None),
        (None, "rel/", None),
    ],
)
def test_page_base(page_url: str | None, base: str | None, expected: str | None) -> None:
    assert page_base(page_url, base) == expected


def test_the_2014_file(fixtures_dir: Path) -> None:
    (path,) = (fixtures_dir / "wat").glob("warc__*.wat")
    rows, counts = read(path.read_bytes())
    assert [row["text"] for row in rows] == ["496", "Previous", "Next", "Creative Commons License"]
    assert {row["licence"] for row in rows} == {"http://creativecommons.org/licenses/by-sa/3.0/"}
    assert counts == {}


def test_the_2024_file_has_no_pairs(fixtures_dir: Path) -> None:
    for path in (fixtures_dir / "wat").glob("whirlwind*.wat*"):
        assert read(path.read_bytes()) == ([], {})


def test_files_that_are_no_wat_are_counted_and_end(fixtures_dir: Path) -> None:
    paths = [path for path in (fixtures_dir / "warc").rglob("*") if path.is_file()]
    assert len(paths) > 30
    damage = {IngestReason.TRUNCATED_INPUT, IngestReason.DAMAGED_RECORD}
    allowed = damage | {IngestReason.UNREADABLE_RECORD}
    counts = {path.name: read(path.read_bytes())[1] for path in paths}
    assert all(set(found) <= allowed for found in counts.values())
    damaged = {name for name, found in counts.items() if damage & set(found)}
    assert damaged >= {
        "chatnoir-resiliparse__clipped.warc.gz",
        "example-trunc.warc",
        "double-single-inflate-error.gz",
        "bad.arc",
    }
    assert not damaged & {"example.warc", "example.warc.gz", "dolma__sample-0000.warc.gz"}
    assert counts["example-trunc.warc"] == {IngestReason.DAMAGED_RECORD: 1}, "a good record comes behind it"
