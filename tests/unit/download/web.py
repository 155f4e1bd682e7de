from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.config.models import DownloadSettings
from curate.dataset.family import CANDIDATES
from curate.dataset.records import Record, RecordStore
from curate.dataset.uid import uid_of
from curate.dataset.workspace import Workspace
from curate.engine.stage import Unit


def picture(width: int = 64, height: int = 48, fmt: str = "JPEG", seed: int = 0, **options: Any) -> bytes:
    """Smooth colours that survive JPEG, as an encoded image."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y + 40 * seed) % 256], axis=-1)
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, fmt, **options)
    return stream.getvalue()


def hanging(width: int = 60_000_000) -> bytes:
    """A BMP of one row: one pixel, then an end of line, which Pillow fills byte by byte for many seconds."""
    head = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, 0, 0, 0, 256, 0)
    return struct.pack("<2sIII", b"BM", 0, 0, 14 + 40 + 1024) + head + bytes(1024) + b"\1\5\0\0"


Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A web server on 127.0.0.1 whose every path is a function."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.hits: Counter[str] = Counter()
        self.headers: dict[str, Any] = {}
        self.closing = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                site.hits[path] += 1
                site.headers[path] = self.headers
                self.close_connection = True
                with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
                    site.answers.get(path, status(404))(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 256

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def add(self, path: str, answer: Answer) -> str:
        self.answers[path] = answer
        return self.base + path

    def stop(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


def body(data: bytes, code: int = 200, length: int | None = None, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def status(code: int, **headers: str) -> Answer:
    return body(b"", code, **headers)


def redirect(location: str, code: int = 302) -> Answer:
    return status(code, Location=location)


def no_length(data: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + data)

    return answer


def chunked(data: bytes, size: int, end: bool = True) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(data), size):
            part = data[i : i + size]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        if end:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def raw(data: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)

    return answer


def drip(site: Site, head: bytes, every: float = 0.05) -> Answer:
    """Send ``head``, then one byte at a time until the other side has had enough."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        until = time.monotonic() + 20
        while not site.closing.wait(every) and time.monotonic() < until:
            handler.wfile.write(b"x")
            handler.wfile.flush()

    return answer


def silence(site: Site) -> Answer:
    return lambda handler: site.closing.wait(20) and None


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Close with RST."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.wfile = io.BytesIO()  # type: ignore[assignment]


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close without a word."""


def flaky(failures: int, failure: Answer, then: Answer) -> Answer:
    left = [failures]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        left[0] -= 1
        (failure if left[0] >= 0 else then)(handler)

    return answer


def settings(**changes: Any) -> DownloadSettings:
    base: dict[str, Any] = {
        "allow_private_addresses": True,
        "timeout": 5.0,
        "deadline": 10.0,
        "retries": 0,
        "threads": 8,
    }
    return DownloadSettings(**{**base, **changes})


def make_shard(
    workspace: Workspace,
    pairs: list[tuple[str, str]],
    shard: str = "00000",
    extra: dict[str, pa.Array] | None = None,
) -> Unit:
    """A committed shard of candidates, (url, text) each, as ingest would leave it.

    Columns of ``extra`` are in the order of ``pairs``.
    """
    table = pa.table(
        {
            "uid": pa.array([uid_of(text, url) for url, text in pairs], pa.string()),
            "url": pa.array([url for url, _ in pairs], pa.string()),
            "text": pa.array([text for _, text in pairs], pa.string()),
            **(extra or {}),
        }
    ).sort_by("uid")
    ref = workspace.write_table(CANDIDATES.path(shard), table)
    RecordStore(workspace).write(
        Record(
            stage="ingest",
            unit=shard,
            key="k",
            settings={},
            code_version=1,
            inputs_digest="",
            inputs=[],
            outputs=[ref],
            rows_in=len(table),
            rows_out=len(table),
            drops={},
        )
    )
    return Unit(shard, (ref,))
