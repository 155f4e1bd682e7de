from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given
from hypothesis import strategies as st

from curate.demo.wat import reference, write_wats
from curate.demo.world import World, WorldConfig


def records(path: Path) -> list[tuple[str, str, bytes]]:
    with path.open("rb") as stream:
        return [
            (record.headers["WARC-Type"], record.headers.get("WARC-Target-URI", ""), record.reader.read())
            for record in ArchiveIterator(stream, parse_http=False, record_types=WarcRecordType.any_type)
        ]


def envelope(block: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(block)["Envelope"]  # type: ignore[no-any-return]
    except ValueError:
        return None


@pytest.fixture(scope="module")
def wats(small_world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_wats(small_world, tmp_path_factory.mktemp("wats"), files=3)


def all_links(paths: list[Path]) -> list[tuple[str, dict[str, Any]]]:
    """(base, link) of all pages, read with nothing of ours."""
    out = []
    for path in paths:
        for kind, target, block in records(path):
            found = envelope(block) if kind == "metadata" else None
            if found is None:
                continue
            http = found["Payload-Metadata"].get("HTTP-Response-Metadata", {})
            html = http.get("HTML-Metadata", {})
            base = urljoin(target, html.get("Head", {}).get("Base", ""))
            out += [(base, link) for link in html.get("Links", [])]
    return out


def test_pairs_of_the_wats_are_the_truth_and_the_truth_is_in_the_wats(
    small_world: World, wats: list[Path]
) -> None:
    found: Counter[tuple[str, str]] = Counter()
    for base, link in all_links(wats):
        if link["path"] == "IMG@/src" and link.get("alt", "").strip() and link.get("url"):
            url = urljoin(base, link["url"])
            if url.startswith("http"):
                found[url, link["alt"]] += 1
    expected = {(r["url"], r["text"]): r["occurrences"] for r in small_world.truth().to_pylist()}
    assert dict(found) == expected


def test_records_are_what_common_crawl_writes(wats: list[Path]) -> None:
    kinds: Counter[str] = Counter()
    for path in wats:
        first, *rest = records(path)
        assert first[0] == "warcinfo"
        assert all(kind == "metadata" for kind, _, _ in rest)
        for _, target, block in rest:
            found = envelope(block)
            if found is None:
                kinds["invalid"] += 1
                continue
            kind = found["WARC-Header-Metadata"]["WARC-Type"]
            assert found["WARC-Header-Metadata"]["WARC-Target-URI"] == target
            kinds[kind] += 1
            if kind == "response":
                html = found["Payload-Metadata"]["HTTP-Response-Metadata"]["HTML-Metadata"]
                assert "Title" in html["Head"]
                kinds["no links" if "Links" not in html else "links"] += 1
    assert kinds["invalid"] == len(wats)
    assert min(kinds[k] for k in ("response", "request", "metadata", "links", "no links")) > 0


def test_the_fields_of_a_genuine_record_are_there(wats: list[Path], fixtures_dir: Path) -> None:
    """Every key of a real 2024 request record occurs in ours, at the same place."""

    def keys(value: Any, prefix: str = "") -> set[str]:
        if not isinstance(value, dict) or prefix.endswith("/Headers"):
            return set()
        return {f"{prefix}/{k}" for k in value} | {
            p for k, v in value.items() for p in keys(v, f"{prefix}/{k}")
        }

    def requests(path: Path) -> list[Any]:
        got = [json.loads(b) for k, _, b in records(path) if k == "metadata" and envelope(b) is not None]
        return [v for v in got if v["Envelope"]["WARC-Header-Metadata"]["WARC-Type"] == "request"]

    genuine = requests(fixtures_dir / "wat" / "whirlwind-python__whirlwind.warc.wat.gz")[0]
    ours = requests(wats[0])[0]
    assert keys(genuine) <= keys(ours)


def test_the_mess_is_planted(wats: list[Path]) -> None:
    links = all_links(wats)
    paths = Counter(link["path"] for _, link in links)
    assert paths["IMG@/data-src"] > 0
    assert paths["A@/href"] > 0
    images = [link for _, link in links if link["path"] == "IMG@/src"]
    assert any("url" not in link for link in images)
    assert any("alt" not in link for link in images)
    assert any(link.get("alt") == "" for link in images)
    schemes = {link.get("url", "").partition(":")[0] for link in images}
    assert {"data", "javascript", "http"} <= schemes
    assert any(link.get("url", "").startswith("//") for link in images)
    assert any(link.get("url", "").startswith("../") for link in images)


def test_bytes_are_deterministic_one_gzip_member_per_record(
    small_world: World, wats: list[Path], tmp_path: Path
) -> None:
    again = write_wats(World(small_world.config), tmp_path, files=3)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in wats]
    data = again[0].read_bytes()
    assert data[4:8] == b"\0\0\0\0"
    assert data.count(b"\x1f\x8b\x08") >= len(records(again[0]))
    assert gzip.decompress(data).startswith(b"WARC/1.0\r\nWARC-Type: warcinfo\r\n")
    other = write_wats(World(WorldConfig(seed=42, images=300)), tmp_path / "other", files=3)
    assert other[0].read_bytes() != data


@given(
    st.sampled_from(
        ["http://a.example/x/y/page.html", "http://a.example/", "http://a.example/b/c/", "http://b.example/q"]
    ),
    st.sampled_from(
        [
            "http://a.example/x/i.jpg",
            "http://a.example/media/2024/i.jpg?w=3",
            "http://b.example/i.png?a=1&b=2",
        ]
    ),
    st.integers(0, 500),
)
def test_references_resolve_to_their_url(base: str, url: str, seed: int) -> None:
    assert urljoin(base, reference(base, url, random.Random(seed))) == url
