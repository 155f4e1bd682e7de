"""Common Crawl WAT files to rows: one row per ``<img src>`` with an alt text, in document order.

The pairs are those of cc2dataset (``extract_documents_from_wat``, document type "image"): only links
whose path is ``IMG@/src``, the alt text verbatim, an absolute ``http://`` or ``https://`` URL verbatim,
so that ``md5(text + url)`` is the same key. Where the two differ is listed, with the reasons, in
docs/ingest-vs-cc2dataset.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any

import ada_url
import fsspec
import msgspec
import numpy as np
import pyarrow as pa

from curate.ingest.inputs import check_complete
from curate.ingest.json_text import decode_leniently
from curate.ingest.warc import iter_metadata, swallowed
from curate.reasons import IngestReason

WAT_SCHEMA = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("page_url", pa.string()),
        pa.field("source", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("opt_out", pa.bool_(), nullable=False),
    ]
)
"""Columns of a WAT batch.

``title`` is the image's own title attribute, ``source`` the WARC file that holds the page
(``Container.Filename``, cc2dataset's ``cc_filename``), ``licence`` the first Creative Commons link of the
page (a hint about the page, not a grant for the image), ``opt_out`` whether the page says ``noai`` or
``noimageai`` in a robots meta tag or an ``X-Robots-Tag`` header.
"""

MAX_RECORD_BYTES = 128 << 20
"""A longer record is not read. Common Crawl cuts a page at 1 MiB, which bounds its WAT record, too."""

MAX_BATCH_BYTES = 64 << 20
"""A batch is also closed when its strings reach about this many characters."""

_IMG_SRC = "IMG@/src"
_HTTP = ("http://", "https://")
# Most URLs. The parser, which is slower, accepts each: only a host can make a URL invalid.
_PLAIN_URL = re.compile(r"https?://(?:(?!xn--)[a-z0-9-]+\.)+[a-z]{2,}(?:[/?#]|\Z)")
_LICENCE = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/", re.IGNORECASE)
_OPT_OUT = re.compile(r"(?<![\w-])no(?:image)?ai(?![\w-])", re.IGNORECASE)
_BASE_IGNORED = re.compile(r"[\x00-\x20]*(?:data|javascript):", re.IGNORECASE)


class _Link(msgspec.Struct, gc=False):
    path: str = ""
    url: str | None = None
    alt: str | None = None
    title: str | None = None


class _Head(msgspec.Struct, gc=False):
    base: str | None = msgspec.field(name="Base", default=None)
    # Metas and Link are seldom needed: kept as undecoded bytes until a page turns out to need them.
    metas: msgspec.Raw = msgspec.field(name="Metas", default=msgspec.Raw(b"[]"))
    link: msgspec.Raw = msgspec.field(name="Link", default=msgspec.Raw(b"[]"))


class _Html(msgspec.Struct, gc=False):
    links: list[_Link] | None = msgspec.field(name="Links", default=None)
    head: _Head | None = msgspec.field(name="Head", default=None)


class _Response(msgspec.Struct, gc=False):
    html: _Html | None = msgspec.field(name="HTML-Metadata", default=None)
    headers: msgspec.Raw = msgspec.field(name="Headers", default=msgspec.Raw(b"{}"))


class _Payload(msgspec.Struct, gc=False):
    response: _Response | None = msgspec.field(name="HTTP-Response-Metadata", default=None)


class _WarcHeader(msgspec.Struct, gc=False):
    target_uri: str | None = msgspec.field(name="WARC-Target-URI", default=None)


class _Envelope(msgspec.Struct, gc=False):
    payload: _Payload | None = msgspec.field(name="Payload-Metadata", default=None)
    header: _WarcHeader | None = msgspec.field(name="WARC-Header-Metadata", default=None)


class _Container(msgspec.Struct, gc=False):
    filename: str | None = msgspec.field(name="Filename", default=None)


class _Record(msgspec.Struct, gc=False):
    envelope: _Envelope = msgspec.field(name="Envelope")
    container: _Container | None = msgspec.field(name="Container", default=None)


_decoder = msgspec.json.Decoder(_Record)


def resolve(url: str, base: str | None) -> str | IngestReason:
    """The absolute http(s) URL of an image link, or the reason why there is none.

    A string that starts with ``http://`` or ``https://`` in lower case comes back verbatim when it parses:
    the uid hashes exact strings. Anything else is resolved against ``base`` by the WHATWG URL standard
    (``ada_url``) and comes back in the standard's serialisation.
    """
    if url.startswith(_HTTP):
        return url if ada_url.URL.can_parse(url) else IngestReason.BAD_URL
    if url[:5].lower() == "data:":  # up to a megabyte each and never an address: not worth parsing
        return IngestReason.BAD_SCHEME
    try:
        absolute = ada_url.URL(url).href if base is None else ada_url.join_url(base, url)
    except ValueError:
        return IngestReason.BAD_URL
    return absolute if absolute.startswith(_HTTP) else IngestReason.BAD_SCHEME


def page_base(page_url: str | None, base: str | None) -> str | None:
    """What relative links of a page are relative to: ``<base href>`` joined to the page's URL.

    As HTML has it, a base that does not parse or is a data: or javascript: URL is ignored. None when the
    page's own URL is missing or broken and there is no absolute base.
    """
    page = page_url if page_url is not None and ada_url.URL.can_parse(page_url) else None
    if not base or _BASE_IGNORED.match(base):
        return page
    try:
        return ada_url.URL(base).href if page is None else ada_url.join_url(page, base)
    except ValueError:
        return page


def iter_wat_batches(
    stream_or_url: str | IO[bytes],
    *,
    batch_rows: int,
    counts: Counter[str],
    stats: Counter[str] | None = None,
    fs_options: Mapping[str, Any] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Stream the image-text rows of one WAT file (plain, or gzip of any number of members).

    Yields batches of at most ``batch_rows`` rows in :data:`WAT_SCHEMA`; every ``IMG@/src`` link becomes a
    row or adds one to ``counts`` under an :class:`~curate.reasons.IngestReason`: ``no_text``, ``no_url``,
    ``bad_url``, ``bad_scheme``. A metadata record that is not JSON with an envelope adds one
    ``unreadable_record``. Damage costs the records that it touches and adds one ``damaged_record``, or
    ``truncated_input`` where it goes on to the end of the file; ``stats["bytes_lost"]`` grows by its length
    (see :func:`~curate.ingest.warc.iter_metadata`). ``counts`` and ``stats`` are complete once the iterator
    is exhausted.

    Memory is bounded by one record and one batch, whatever is in the file: 70 MiB and, where a record is
    longer than usual, three times its length (:data:`MAX_RECORD_BYTES`).

    Raises: OSError and the like when the file cannot be opened or read (that is not the data's fault).
    """
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {batch_rows}")
    stats = Counter() if stats is None else stats
    if isinstance(stream_or_url, str):
        with fsspec.open(stream_or_url, "rb", **(fs_options or {})) as stream:
            yield from _iter_batches(stream, batch_rows, counts, stats)
            check_complete(stream, stream_or_url)
    else:
        yield from _iter_batches(stream_or_url, batch_rows, counts, stats)


def _iter_batches(
    stream: IO[bytes], batch_rows: int, counts: Counter[str], stats: Counter[str]
) -> Iterator[pa.RecordBatch]:
    rows = _Rows()
    for body in iter_metadata(stream, counts, stats, max_record_bytes=MAX_RECORD_BYTES):
        if not _add_record(body, rows, counts):
            inner = swallowed(body, counts, stats, max_record_bytes=MAX_RECORD_BYTES)
            for each in [body] if inner is None else inner:
                if inner is None or not _add_record(each, rows, counts):
                    counts[IngestReason.UNREADABLE_RECORD] += 1
        if len(rows.url) >= batch_rows or rows.chars >= MAX_BATCH_BYTES:
            yield from rows.flush(batch_rows)
    yield from rows.flush(batch_rows)


class _Rows:
    """Columns under construction. What belongs to a page is kept once per page, with its number of rows."""

    def __init__(self) -> None:
        self.url: list[str] = []
        self.text: list[str] = []
        self.title: list[str | None] = []
        self.pages: list[tuple[str | None, str | None, str | None, bool]] = []
        self.page_rows: list[int] = []
        self.chars = 0

    def flush(self, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows so far in batches of at most ``batch_rows``; leaves the columns empty."""
        if not self.url:
            return
        page = pa.array(np.repeat(np.arange(len(self.pages)), self.page_rows))
        per_page = zip(WAT_SCHEMA.names[3:], zip(*self.pages, strict=True), strict=True)
        columns = [
            pa.array(self.url, pa.string()),
            pa.array(self.text, pa.string()),
            pa.array(self.title, pa.string()),
            *(pa.array(values, WAT_SCHEMA.field(name).type).take(page) for name, values in per_page),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=WAT_SCHEMA)
        self.__init__()  # type: ignore[misc]
        for start in range(0, batch.num_rows, batch_rows):
            yield batch.slice(start, batch_rows)


def _add_record(body: bytes, rows: _Rows, counts: Counter[str]) -> bool:
    """Add the rows of one record; returns False if it cannot be read."""
    try:
        record = _decoder.decode(body)
    except (ValueError, RecursionError):
        lenient = _decode_record(body)
        if lenient is None:
            return False
        record = lenient
    payload = record.envelope.payload
    response = payload.response if payload is not None else None
    html = response.html if response is not None else None
    if response is None or html is None or not html.links:
        return True
    page_url = record.envelope.header.target_uri if record.envelope.header is not None else None
    before = len(rows.url)
    _add_links(html.links, page_base(page_url, html.head.base if html.head else None), rows, counts)
    added = len(rows.url) - before
    if added:
        source = record.container.filename if record.container is not None else None
        licence = _licence(html) if b"creativecommons" in body else None
        opt_out = _opts_out(response, html.head)
        rows.pages.append((page_url, source, licence, opt_out))
        rows.page_rows.append(added)
    return True


def _add_links(links: list[_Link], base: str | None, rows: _Rows, counts: Counter[str]) -> None:
    urls, texts, titles = rows.url, rows.text, rows.title
    is_plain, can_parse = _PLAIN_URL.match, ada_url.URL.can_parse
    without_text = 0  # a third of all images: too many to count one by one under an enum's slow hash
    chars = 0
    for link in [link for link in links if link.path == _IMG_SRC]:
        alt, url = link.alt, link.url
        if not alt:
            without_text += 1
            continue
        if not url or not (is_plain(url) or (url.startswith(_HTTP) and can_parse(url))):
            resolved = resolve(url, base) if url and not url.isspace() else IngestReason.NO_URL
            if isinstance(resolved, IngestReason):
                counts[resolved] += 1
                continue
            url = resolved
        urls.append(url)
        texts.append(alt)
        titles.append(link.title)
        chars += len(url) + len(alt)
    rows.chars += chars
    if without_text:
        counts[IngestReason.NO_TEXT] += without_text


def _licence(html: _Html) -> str | None:
    """The first Creative Commons licence that the page links to, in its body or else in its head."""
    head = _links(_loads(html.head.link)) if html.head is not None else []
    for link in [*(html.links or []), *head]:
        if link.url is not None and _LICENCE.search(link.url):
            return link.url
    return None


def _opts_out(response: _Response, head: _Head | None) -> bool:
    said = (bytes(response.headers) + bytes(head.metas if head is not None else b"")).lower()
    if b"noai" not in said and b"noimageai" not in said:  # nearly every page: not worth decoding
        return False
    headers = _loads(response.headers)
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if name.lower() == "x-robots-tag" and _OPT_OUT.search(str(value)):
            return True
    metas = _loads(head.metas) if head is not None else []
    for meta in metas if isinstance(metas, list) else ():
        name = _text(meta, "name")
        if name is not None and name.strip().lower() == "robots":
            content = _text(meta, "content")
            if content is not None and _OPT_OUT.search(content):
                return True
    return False


def _loads(raw: bytes | msgspec.Raw) -> Any:
    """The value of a JSON text; None if it is none."""
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        pass
    try:
        return decode_leniently(bytes(raw).decode("utf-8", "replace"))
    except ValueError:
        return None


def _decode_record(body: bytes) -> _Record | None:
    """A record in which some value has another type than Common Crawl's, or a string is not strictly valid.

    Values of a wrong type count as missing; bytes that are not UTF-8 and lone surrogates become U+FFFD. So a
    bad link costs that link. None when it is no JSON object with an envelope.
    """
    value = _loads(body)
    envelope = _child(value, "Envelope")
    if envelope is None:
        return None
    response = _child(_child(envelope, "Payload-Metadata"), "HTTP-Response-Metadata")
    html = _child(response, "HTML-Metadata")
    head = _child(html, "Head") or {}
    raw = {key: msgspec.Raw(msgspec.json.encode(head.get(key))) for key in ("Metas", "Link")}
    page = _Html(
        links=_links((html or {}).get("Links")),
        head=_Head(base=_text(head, "Base"), metas=raw["Metas"], link=raw["Link"]),
    )
    headers = msgspec.Raw(msgspec.json.encode((response or {}).get("Headers")))
    return _Record(
        envelope=_Envelope(
            payload=_Payload(response=_Response(html=page, headers=headers)),
            header=_WarcHeader(target_uri=_text(_child(envelope, "WARC-Header-Metadata"), "WARC-Target-URI")),
        ),
        container=_Container(filename=_text(_child(value, "Container"), "Filename")),
    )


def _links(values: Any) -> list[_Link]:
    return [
        _Link(_text(link, "path") or "", _text(link, "url"), _text(link, "alt"), _text(link, "title"))
        for link in (values if isinstance(values, list) else [])
    ]


def _child(value: Any, key: str) -> dict[str, Any] | None:
    child = value.get(key) if isinstance(value, dict) else None
    return child if isinstance(child, dict) else None


def _text(value: Any, key: str) -> str | None:
    text = value.get(key) if isinstance(value, dict) else None
    return text if isinstance(text, str) else None
