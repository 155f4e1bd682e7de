"""The whole road on pictures and pages that nobody here made, served from loopback."""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fastwarc.warc import ArchiveIterator, WarcRecordType

from curate.dataset.uid import uid_of
from tests.e2e.conftest import Run


@contextlib.contextmanager
def served(answers: dict[str, bytes]) -> Iterator[str]:
    """Path or absolute URL → body, on loopback, also as an HTTP proxy."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = answers.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def captioned(fixtures: Path) -> dict[Path, str]:
    """The photographs that have a caption or title by their maker."""
    found = {}
    with (fixtures / "images/cc_test_images/credits.csv").open() as stream:
        for row in csv.DictReader(stream):
            found[fixtures / "images/cc_test_images" / f"{row['ImageID']}.jpg"] = row["Title"]
    table = fixtures / "embeddings/clip_retrieval_output/embeddings/metadata/metadata_0.parquet"
    for row in pq.read_table(table).to_pylist():
        found[fixtures / "images/fashion_catalog" / Path(row["image_path"]).name] = row["caption"]
    return {path: text for path, text in found.items() if path.is_file() and text.strip()}


def config(folder: Path, source: dict[str, Any], download: dict[str, Any]) -> Path:
    facts = {
        "workspace": str(folder / "work"),
        "run": {"cluster": "synchronous"},
        "ingest": {"sources": [source], "shard_size": 10},
        "download": download,
        "embed": {"models": {"demo": {"model": "demo"}}},
        "score": {"scorers": {"text": {"type": "text"}, "image": {"type": "image"}}},
        "filter": {"experiments": {"big": {"rules": {"size": "image_min_side >= 100"}}}},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


@pytest.fixture(scope="module")
def photographs(
    fixtures_dir: Path, curate: Run, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[Path, str]]:
    folder = tmp_path_factory.mktemp("photographs")
    pictures = captioned(fixtures_dir)
    assert len(pictures) > 20
    with served({f"/{path.name}": path.read_bytes() for path in pictures}) as url:
        rows = {"URL": [f"{url}/{p.name}" for p in pictures], "TEXT": list(pictures.values())}
        pq.write_table(pa.table(rows), folder / "pairs.parquet")
        source = {"paths": [str(folder / "pairs.parquet")]}
        curate("run", config(folder, source, {"allow_private_addresses": True}))
    return folder / "work", pictures


def test_every_photograph_arrives_and_finds_itself(
    photographs: tuple[Path, dict[Path, str]], curate: Run
) -> None:
    work, pictures = photographs
    tables = [pq.read_table(p) for p in sorted(work.glob("images/*.parquet"))]
    rows = [r for t in tables for r in t.to_pylist()]
    assert {r["caption"] for r in rows} == set(pictures.values())
    assert {r["status"] for r in rows} == {"success"}
    path, text = next((p, t) for p, t in pictures.items() if p.suffix == ".jpg")
    hits = json.loads(curate("search", "--image", path, "-w", work, "--json").stdout)
    assert hits[0]["text"] == text
    assert hits[0]["similarity"] > 0.95
    trail = curate("explain", hits[0]["uid"], "-w", work).stdout
    assert "kept" in trail
    assert text in trail


def test_open_clip_trains_on_the_export(photographs: tuple[Path, dict[Path, str]], tmp_path: Path) -> None:
    work, pictures = photographs
    sizes = json.loads((work / "export/big/sizes.json").read_text())
    assert sum(sizes.values()) == len(pictures)
    tar = sorted((work / "export/big").glob("*.tar"))[0]
    with tarfile.open(tar) as archive:
        suffixes = {name.split(".", 1)[1] for name in archive.getnames()}
    assert {"txt", "json"} < suffixes
    options = {
        "train-data": tar,
        "dataset-type": "webdataset",
        "train-num-samples": sum(sizes.values()),
        "batch-size": 8,
        "epochs": 1,
        "workers": 0,
        "model": "RN50",
        "force-image-size": 32,
        "precision": "fp32",
        "device": "cpu",
        "warmup": 1,
        "logs": tmp_path / "logs",
        "name": "run",
        "save-frequency": 0,
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "open_clip_train.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Train Epoch: 0" in done.stderr + done.stdout


def test_a_real_page_from_its_warc(fixtures_dir: Path, curate: Run, tmp_path: Path) -> None:
    """A page with 20 book covers: links as Common Crawl would list them, images from the same WARC."""
    warc = fixtures_dir / "warc" / "node-warc__books.toscrape.warc"
    images: dict[str, bytes] = {}
    html = ""
    with warc.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
            body = record.reader.read()
            kind = record.http_headers.get("content-type", "") if record.http_headers else ""
            if kind.startswith("image/"):
                images[record.headers["WARC-Target-URI"]] = body
            elif kind.startswith("text/html"):
                html, page = body.decode("utf-8", "replace"), record.headers["WARC-Target-URI"]
    links = [{"path": "IMG@/src", "url": src, "alt": alt} for src, alt in _images_of(html)]
    assert len(links) == 20
    envelope = {
        "Container": {"Filename": "books.warc.gz"},
        "Envelope": {
            "WARC-Header-Metadata": {"WARC-Target-URI": page},
            "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": {"Links": links}}},
        },
    }
    _write_wat(tmp_path / "books.warc.wat", page, json.dumps(envelope).encode())
    with served(images) as proxy:
        source = {"paths": [str(tmp_path / "books.warc.wat")]}
        curate("run", config(tmp_path, source, {"proxy": proxy}))
    rows = [
        r for p in sorted((tmp_path / "work/images").glob("*.parquet")) for r in pq.read_table(p).to_pylist()
    ]
    assert len(rows) == 20
    assert {r["status"] for r in rows} == {"success"}
    for row in rows:
        assert row["uid"] == uid_of(row["caption"], row["url"])
    assert {r["caption"] for r in rows} == {link["alt"] for link in links}


def _images_of(html: str) -> list[tuple[str, str]]:
    from html.parser import HTMLParser

    found: list[tuple[str, str]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            if tag == "img" and values.get("src") and values.get("alt"):
                found.append((str(values["src"]), str(values["alt"])))

    Parser().feed(html)
    return found


def _write_wat(path: Path, page: str, block: bytes) -> None:
    head = (
        f"WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: {page}\r\n"
        "WARC-Date: 2020-01-01T00:00:00Z\r\n"
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    path.write_bytes(head.encode() + block + b"\r\n\r\n")
