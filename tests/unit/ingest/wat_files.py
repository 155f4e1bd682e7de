"""Small WAT files for the tests, written as Common Crawl's are."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from typing import Any

import pyarrow as pa

from curate.ingest.wat import WAT_SCHEMA, iter_wat_batches

PAGE = "https://www.example.org/a/b/page.html"


def warc_record(body: bytes, kind: str = "metadata") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {PAGE}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def img(url: Any, alt: Any = "a photo", **more: Any) -> dict[str, Any]:
    return {"path": "IMG@/src", "url": url, "alt": alt, **more}


def page(
    links: list[Any],
    head: dict[str, Any] | None = None,
    *,
    url: str | None = PAGE,
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    html = {"Links": links, "Head": head or {}}
    return {
        "Container": {"Filename": "crawl.warc.gz"},
        "Envelope": {
            "Payload-Metadata": {
                "HTTP-Response-Metadata": {"Headers": headers or {}, "HTML-Metadata": html},
            },
            "WARC-Header-Metadata": {"WARC-Target-URI": url},
        },
    }


def wat(*pages: Any) -> bytes:
    """An uncompressed WAT file; a page that is bytes is taken as the body of its record."""
    bodies = [p if isinstance(p, bytes) else json.dumps(p, ensure_ascii=False).encode() for p in pages]
    return warc_record(b"Software-Info: test\r\n", "warcinfo") + b"".join(map(warc_record, bodies))


def gzip_records(data: bytes) -> bytes:
    """The same WARC file with one gzip member a record, as Common Crawl has it."""
    parts = data.split(b"WARC/1.0\r\n")[1:]
    return b"".join(gzip.compress(b"WARC/1.0\r\n" + part, mtime=0) for part in parts)


def read(
    data: bytes, batch_rows: int = 1000, stats: Counter[str] | None = None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """All rows of a WAT file and the counts of what did not become one."""
    counts: Counter[str] = Counter()
    batches = list(iter_wat_batches(io.BytesIO(data), batch_rows=batch_rows, counts=counts, stats=stats))
    assert all(batch.schema == WAT_SCHEMA and 0 < batch.num_rows <= batch_rows for batch in batches)
    for batch in batches:
        batch.validate(full=True)
    return pa.Table.from_batches(batches, WAT_SCHEMA).to_pylist(), dict(counts)
