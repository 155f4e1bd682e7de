#!/usr/bin/env python3
"""Memory of the driver and of the workers at two sizes of dataset.

Serves a bank of small JPEGs on loopback, runs the whole pipeline on N and on 10 N candidates (each in
a fresh workspace, two local workers), samples the resident memory of every process of the run, and
compares the peaks. The bar: at ten times the rows, no process needs over 20 % more.

    python scripts/bench/memory.py [--small 10000] [--large 100000]

The last line is one JSON object. Linux only (reads /proc through psutil).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

BANK = 256
BAR = 1.20


def jpegs() -> list[bytes]:
    """Pictures of 200 to 400 pixels with some texture, a few kB each."""
    rng = np.random.default_rng(0)
    bank = []
    for _ in range(BANK):
        width, height = rng.integers(200, 400, 2)
        coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=85)
        bank.append(stream.getvalue())
    return bank


@contextlib.contextmanager
def served(bank: list[bytes]) -> Iterator[int]:
    """The bank on loopback; ``/<n>.jpg`` is picture n modulo the bank."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = bank[int(self.path.strip("/").split(".")[0]) % BANK]
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def config(folder: Path, rows: int, port: int) -> Path:
    """A config with every stage, over a table of ``rows`` pairs."""
    words = ["red", "blue", "green", "small", "large", "circle", "square", "triangle", "left", "right"]
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(words, 5)) + f" {i}" for i in range(rows)]
    urls = [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(rows)]
    table = folder / "pairs.parquet"
    pq.write_table(pa.table({"url": urls, "text": texts}), table)
    facts = {
        "workspace": str(folder / "work"),
        "run": {"workers": 2},
        "ingest": {"sources": [{"paths": [str(table)]}], "shard_size": 2500},
        "download": {"threads": 16, "allow_private_addresses": True},
        "embed": {"models": {"demo": {"model": "demo"}}},
        "score": {
            "scorers": {
                "text": {"type": "text"},
                "image": {"type": "image"},
                "watermark": {"type": "zero_shot", "model": "demo", "prompts": "watermark"},
            }
        },
        "filter": {"experiments": {"half": {"rules": {"top": {"top": "similarity", "fraction": 0.5}}}}},
        "export": {"shard_size": 2500},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


def measured_run(path: Path) -> dict[str, float]:
    """Peak resident MB of the driver and of the largest worker, seconds, over one run."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "curate.cli", "run", str(path)])
    root = psutil.Process(process.pid)
    driver = worker = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            driver = max(driver, root.memory_info().rss)
            for child in root.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    worker = max(worker, child.memory_info().rss)
        time.sleep(0.1)
    if process.returncode != 0:
        raise SystemExit(f"the run ended with {process.returncode}")
    return {"driver_mb": driver / 1e6, "worker_mb": worker / 1e6, "seconds": time.monotonic() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    arguments = parser.parse_args()
    results = {}
    with served(jpegs()) as port:
        for rows in (arguments.small, arguments.large):
            folder = Path(tempfile.mkdtemp(prefix="curate-memory-"))
            try:
                results[rows] = measured_run(config(folder, rows, port))
                counted = json.loads((folder / "work/.curate/dataset.json").read_text())["candidates"]
                assert counted == rows, f"{counted} of {rows} candidates"
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            print(rows, results[rows], flush=True)
    small, large = results[arguments.small], results[arguments.large]
    ratio = max(large[k] / small[k] for k in ("driver_mb", "worker_mb"))
    figures = {"ours": large, "peer": None, "ratio": ratio, "floor": small}
    print(json.dumps({"bench": "memory", **figures, "bar": BAR, "ok": ratio <= BAR}))


if __name__ == "__main__":
    main()
