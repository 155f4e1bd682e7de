"""WAT files of the demo web, in Common Crawl's format, with the mess that real ones have."""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import random
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from curate.demo import hosts
from curate.demo.world import Page, World

Json = dict[str, Any]

_AGENT = "CCBot/2.0 (https://commoncrawl.org/faq/)"
_PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def write_wats(world: World, folder: Path, files: int = 4) -> list[Path]:
    """Write the pages of a world as ``files`` WAT files and return their paths.

    Each is a gzip file with one member per record, as Common Crawl publishes them. The same world gives
    the same bytes. Memory stays at one page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(files):
        path = folder / f"CC-MAIN-20260110090000-20260110120000-{number:05d}.warc.wat.gz"
        with path.open("wb") as out:
            for record in _records(world, number, files, path.name):
                out.write(_gzip(record))
        paths.append(path)
    return paths


def _gzip(data: bytes) -> bytes:
    # A compressobj writes a header without a name and with time 0.
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _records(world: World, number: int, files: int, name: str) -> Iterator[bytes]:
    rng = random.Random(f"wat/{world.config.seed}/{number}")
    info = (
        b"Software-Info: ia-web-commons.1.1.10-SNAPSHOT\r\nExtracted-Date: Sat, 10 Jan 2026 12:30:00 GMT\r\n"
        b"hostname: demo.example\r\nformat: WARC File Format 1.0\r\n"
    )
    head = [
        ("WARC-Type", "warcinfo"),
        ("WARC-Date", "2026-01-10T12:30:00Z"),
        ("WARC-Filename", name),
        ("WARC-Record-ID", _urn(f"{name}/info")),
        ("Content-Type", "application/warc-fields"),
    ]
    yield _warc(head, info)
    source = name.replace(".warc.wat.gz", ".warc.gz")
    pages = world.pages[number::files]
    broken = len(pages) // 2
    offset = 600
    for i, page in enumerate(pages):
        links = _links(world, page, rng, odd=i % 23 == 7)
        common = (source, page.url, f"{name}/{i}")
        if i % 5 == 0:
            yield _metadata(
                page.url, f"{name}/{i}/q", _envelope("request", *common, offset, _request(page.url))
            )
            offset += 420
        yield _metadata(
            page.url, f"{name}/{i}/p", _envelope("response", *common, offset, _response(page, links, rng))
        )
        offset += rng.randint(4_000, 40_000)
        if i % 9 == 0:
            fields = {
                "WARC-Metadata-Metadata": {"Metadata-Records": [{"Name": "fetchTimeMs", "Value": "117"}]}
            }
            yield _metadata(page.url, f"{name}/{i}/m", _envelope("metadata", *common, offset, fields))
            offset += 300
        if i == broken:
            cut = json.dumps(_envelope("response", *common, offset, {}))[:-40].encode()
            yield _warc(_metadata_head(f"http://{page.site}/broken.html", f"{name}/broken"), cut)
        if i == broken + 1:
            url = f"http://{page.site}/about.html"
            alone = _envelope("response", source, url, f"{name}/about", offset, _response(page, None, rng))
            yield _metadata(url, f"{name}/about", alone)


def _urn(key: str) -> str:
    return f"<urn:uuid:{uuid.UUID(bytes=hashlib.md5(key.encode(), usedforsecurity=False).digest())}>"


def _digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def _date(key: str) -> str:
    second = int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()[:6], 16) % 10_800
    return f"2026-01-10T{9 + second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"


def _warc(head: list[tuple[str, str]], block: bytes) -> bytes:
    lines = [*head, ("Content-Length", str(len(block))), ("WARC-Block-Digest", _digest(block))]
    text = "WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
    return text.encode() + block + b"\r\n\r\n"


def _metadata_head(target: str, key: str) -> list[tuple[str, str]]:
    return [
        ("WARC-Type", "metadata"),
        ("WARC-Target-URI", target),
        ("WARC-Date", _date(target)),
        ("WARC-Record-ID", _urn(key)),
        ("WARC-Refers-To", _urn(f"{key}/of")),
        ("Content-Type", "application/json"),
    ]


def _metadata(target: str, key: str, value: Json) -> bytes:
    block = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return _warc(_metadata_head(target, key), block)


def _envelope(kind: str, source: str, url: str, key: str, offset: int, payload: Json) -> Json:
    length = str(400 + len(url) + offset % 9_000)
    content = "application/warc-fields" if kind == "metadata" else f"application/http; msgtype={kind}"
    return {
        "Container": {
            "Filename": source,
            "Compressed": True,
            "Offset": str(offset),
            "Gzip-Metadata": {
                "Deflate-Length": str(300 + offset % 7_000),
                "Header-Length": "10",
                "Footer-Length": "8",
                "Inflated-CRC": str(zlib.crc32(key.encode()) - 2**31),
                "Inflated-Length": length,
            },
        },
        "Envelope": {
            "Payload-Metadata": {
                "Actual-Content-Type": content,
                **payload,
                "Actual-Content-Length": length,
                "Block-Digest": _digest(key.encode()),
                "Trailing-Slop-Length": "4",
            },
            "Format": "WARC",
            "WARC-Header-Length": str(350 + len(url)),
            "WARC-Header-Metadata": {
                "WARC-Type": kind,
                "WARC-Date": _date(url),
                "WARC-Record-ID": _urn(f"{key}/{kind}"),
                "Content-Length": length,
                "Content-Type": content,
                "WARC-Warcinfo-ID": _urn(source),
                "WARC-IP-Address": "192.0.2.17",
                "WARC-Target-URI": url,
            },
        },
    }


def _request(url: str) -> Json:
    parts = urlsplit(url)
    return {
        "HTTP-Request-Metadata": {
            "Request-Message": {
                "Method": "GET",
                "Path": url[len(f"http://{parts.netloc}") :],
                "Version": "HTTP/1.1",
            },
            "Headers": {"User-Agent": _AGENT, "Accept-Encoding": "br,gzip", "Host": parts.netloc},
            "Headers-Length": "263",
            "Entity-Length": "0",
            "Entity-Digest": _digest(b""),
            "Entity-Trailing-Slop-Length": "0",
        }
    }


def _response(page: Page, links: tuple[str | None, list[Json]] | None, rng: random.Random) -> Json:
    """The payload part of a response; ``links`` is (base, links), or None for a page that links nothing."""
    robots = [{"name": "robots", "content": "noai, noimageai"}] if page.site in hosts.OPT_OUT_SITES else []
    head: Json = {
        "Title": f"{hosts.page_title(rng)} | {page.site.removesuffix('.example')}",
        "Metas": [{"name": "viewport", "content": "width=device-width"}, *robots],
        "Link": [{"path": "LINK@/href", "url": "/style.css", "rel": "stylesheet", "type": "text/css"}],
        "Scripts": [{"path": "SCRIPT@/src", "url": "/app.js"}],
    }
    html: Json = {"Head": head}
    if links is not None:
        base, found = links
        if base is not None:
            head["Base"] = base
        html["Links"] = found
    return {
        "HTTP-Response-Metadata": {
            "Response-Message": {"Version": "HTTP/1.1", "Status": "200", "Reason": "OK"},
            "Headers": {
                "Content-Type": "text/html; charset=utf-8",
                "Server": "nginx",
                "Vary": "Accept-Encoding",
            },
            "Headers-Length": "214",
            "HTML-Metadata": html,
            "Entity-Length": str(rng.randint(2_000, 90_000)),
            "Entity-Digest": _digest(page.url.encode()),
            "Entity-Trailing-Slop-Length": "0",
        }
    }


def _links(world: World, page: Page, rng: random.Random, odd: bool) -> tuple[str | None, list[Json]] | None:
    """The page's ``<base>`` and links; ``odd`` adds what makes careless parsers stumble."""
    if not page.placements and not odd:
        # Pages without pictures: some link other pages, some nothing at all.
        if rng.random() < 0.4:
            return None
        return None, [{"path": "A@/href", "url": "/", "text": "Home"}]
    base = rng.choice(("/", "/media/", f"http://{page.site}/static/")) if rng.random() < 0.05 else None
    effective = urljoin(page.url, base) if base else page.url
    links: list[Json] = [
        {"path": "A@/href", "url": "/", "text": "Home"},
        {"path": "FORM@/action", "url": "/search", "method": "get"},
    ]
    for number in page.placements:
        placement = world.placements[number]
        resource = world.resources[placement.resource]
        image: Json = {"path": "IMG@/src", "url": reference(effective, resource.url, rng)}
        # A page without the attribute and one with an empty attribute look different in a WAT.
        if placement.alt or rng.random() < 0.6:
            image["alt"] = placement.alt
        if rng.random() < 0.1:
            image["title"] = "Enlarge"
        if rng.random() < 0.15:
            links.append({"path": "A@/href", "url": f"/view?picture={resource.index}", "text": "View"})
        links.append(image)
    if odd:
        links += _oddities(world, page, rng)
    return base, links


def _oddities(world: World, page: Page, rng: random.Random) -> list[Json]:
    """Links that must not become pairs: no URL, no http, no ``IMG@/src``."""
    lazy = world.placements[page.placements[0]] if page.placements else world.placements[0]
    url = world.resources[lazy.resource].url
    odd: list[Json] = [
        {"path": "IMG@/src", "alt": "an image whose address got lost"},
        {"path": "IMG@/src", "url": _PIXEL, "alt": "a transparent pixel inside the page"},
        {"path": "IMG@/src", "url": "javascript:void(0)", "alt": "a script that poses as an image"},
        {"path": "IMG@/src", "url": "", "alt": ""},
        {"path": "A@/href", "url": "mailto:hello@demo.example", "text": "Write to us"},
    ]
    if lazy.alt:
        # What a lazy loader writes: the real address beside the one that counts.
        odd.append({"path": "IMG@/data-src", "url": url, "alt": lazy.alt})
        odd.append({"path": "DIV@/style", "url": url})
    rng.shuffle(odd)
    return odd


def reference(base: str, url: str, rng: random.Random) -> str:
    """One of the ways to write ``url`` on a page with base URL ``base``; resolves to ``url`` again."""
    here, there = urlsplit(base), urlsplit(url)
    if here.netloc != there.netloc:
        return url if rng.random() < 0.8 else url.removeprefix("http:")
    tail = url[len(f"http://{there.netloc}") :]
    draw = rng.random()
    if draw < 0.2:
        return url
    if draw < 0.7:
        return tail
    path, query = tail.partition("?")[0], tail.partition("?")[2]
    folder = here.path.rpartition("/")[0] + "/"
    relative = posixpath.relpath(path, folder)
    return f"{relative}?{query}" if query else relative
