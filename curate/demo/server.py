"""The demo web on one loopback port: an HTTP proxy, so that URLs do not depend on the port.

Clients set it as their HTTP proxy and ask for ``http://garden-shop.example/a.jpg`` as they would on
the real web. Requests with a path and a ``Host`` header are answered as well.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from curate.demo.answers import HUGE_BYTES, Answer, answer
from curate.demo.hosts import PRIVATE_HOSTS
from curate.demo.world import World

_PADDING = b"\0" * 65536


class _Cache:
    """Least recently used answers, bounded by the bytes of their bodies. Safe for threads."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._items: OrderedDict[str, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, url: str) -> Answer | None:
        with self._lock:
            found = self._items.get(url)
            if found is not None:
                self._items.move_to_end(url)
            return found

    def put(self, url: str, value: Answer) -> None:
        with self._lock:
            if url in self._items:
                return
            self._items[url] = value
            self._held += len(value.body)
            while self._held > self._limit:
                _, old = self._items.popitem(last=False)
                self._held -= len(old.body)


class DemoServer:
    """A running demo web; made by ``serve``.

    ``requests`` counts requests since the start, ``private_requests`` those for private addresses,
    which a careful client never makes.
    """

    def __init__(self, world: World, *, slow_s: float, drip_s: float, cache_bytes: int) -> None:
        self.world, self.slow_s, self.drip_s = world, slow_s, drip_s
        self.stopping = threading.Event()
        self.requests = 0
        self.private_requests = 0
        self._counting = threading.Lock()
        self._cache = _Cache(cache_bytes)
        # Drawing needs megabytes and the interpreter: two at a time are as fast as fifty and far smaller.
        self._drawing = threading.BoundedSemaphore(2)
        handler = type("Handler", (_Handler,), {"demo": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def proxy(self) -> str:
        """The proxy's URL, for example ``http://127.0.0.1:40123``."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, url: str) -> Answer:
        """The response to a URL, drawn now or remembered."""
        found = self._cache.get(url)
        if found is None:
            with self._drawing:
                found = answer(self.world, url)
            self._cache.put(url, found)
        return found

    def count(self, private: bool) -> None:
        """Note one request."""
        with self._counting:
            self.requests += 1
            self.private_requests += private

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering; sleeping and trickling responses end at once."""
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the demo: say nothing."""


class _Handler(BaseHTTPRequestHandler):
    demo: ClassVar[DemoServer]
    protocol_version = "HTTP/1.1"
    server_version = "DemoWeb"
    sys_version = ""
    # Small writes would wait for the client's delayed acknowledgements.
    disable_nagle_algorithm = True
    wbufsize = 65536
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """Answer a GET or, without a body, a HEAD."""
        if self.demo.stopping.is_set():
            self.close_connection = True
            return
        url = self.path
        if not url.startswith("http://"):
            url = f"http://{self.headers.get('Host', '')}{url}"
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.netloc.endswith(":80"):
            url = url.replace(parts.netloc, host, 1)
        self.demo.count(private=host in PRIVATE_HOSTS)
        if host in PRIVATE_HOSTS:
            self.close_connection = True
            return
        found = self.demo.answer(url)
        with suppress(ConnectionError, TimeoutError):
            self._say(found)

    do_HEAD = do_GET  # noqa: N815

    def _say(self, found: Answer) -> None:
        if found.manner == "slow" and self.demo.stopping.wait(self.demo.slow_s):
            self.close_connection = True
            return
        self.send_response(found.status)
        for name, value in found.headers:
            self.send_header(name, value)
        # Half of the huge bodies say how long they are; the others are for clients that count.
        chunked = found.manner == "huge" and len(found.body) % 2 == 1
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            length = HUGE_BYTES if found.manner == "huge" else len(found.body)
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if found.manner == "drip":
            self._trickle(found.body)
        elif found.manner == "huge":
            self._flood(found.body, chunked)
        else:
            self.wfile.write(found.body)

    def _trickle(self, body: bytes) -> None:
        """One byte at a time, for ``drip_s`` seconds; then hang up in mid file."""
        pause = 0.2
        for i in range(min(len(body), max(1, int(self.demo.drip_s / pause)))):
            self.wfile.write(body[i : i + 1])
            self.wfile.flush()
            if self.demo.stopping.wait(pause):
                break
        self.close_connection = True

    def _flood(self, body: bytes, chunked: bool) -> None:
        """A picture, then zeros: never held in memory at full length."""
        left = HUGE_BYTES
        piece = body
        while left > 0 and not self.demo.stopping.is_set():
            piece = piece[:left]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            left -= len(piece)
            piece = _PADDING
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def serve(
    world: World, *, slow_s: float = 4.0, drip_s: float = 8.0, cache_bytes: int = 64 * 1024 * 1024
) -> Iterator[DemoServer]:
    """Run the demo web on 127.0.0.1 and a free port for as long as the context lasts.

    ``slow_s`` is the pause of slow URLs, ``drip_s`` the time for which a trickling body goes on, both
    in seconds. Rendered pictures are kept up to ``cache_bytes``. HTTP only: no CONNECT, no TLS.
    """
    server = DemoServer(world, slow_s=slow_s, drip_s=drip_s, cache_bytes=cache_bytes)
    server.start()
    try:
        yield server
    finally:
        server.stop()
