"""One GET request: bounded in time, bytes and redirects, and only to public addresses.

It stands where the engine calls ``urllib.request.urlopen``. Everything goes over http(s); there are
no other schemes, no cookies, no credentials, no proxies from the environment. Names are resolved
once per connection and the address that was judged is the one that is connected to, so that a name
server cannot answer twice in two ways.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ada_url

from curate.config.models import DownloadSettings
from curate.download import reasons
from curate.download.addresses import is_private_literal, is_public
from curate.download.reasons import FetchError, http_error
from curate.download.robots import is_disallowed

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 1 << 17
_PORTS = {"http:": 80, "https:": 443}


@dataclass
class Budget:
    """What time is left of one request. Monotonic seconds."""

    timeout: float
    ends: float

    @classmethod
    def start(cls, timeout: float, deadline: float) -> Budget:
        """A budget of ``deadline`` seconds from now, at most ``timeout`` for any one wait."""
        return cls(timeout, time.monotonic() + deadline)

    def slice(self) -> float:
        """Seconds the next wait may take. Raises FetchError when the deadline is over."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise FetchError(reasons.DEADLINE)
        return min(self.timeout, left)

    def check(self, error: TimeoutError) -> Exception:
        """The error to report for a wait that ran out: the wait's own, or the deadline's."""
        return FetchError(reasons.DEADLINE) if time.monotonic() >= self.ends else error


@dataclass
class Exchange:
    """What is to be known of a request besides its result; also when it fails."""

    received: int = 0
    """Body bytes read."""
    retry_after: float = 0.0
    """Seconds the server asked us to wait, 0 when it did not."""


class Body:
    """The response that the engine sees: a context manager whose ``read`` gives the whole body."""

    def __init__(self, response: http.client.HTTPResponse, max_bytes: int, exchange: Exchange) -> None:
        self.headers = response.headers
        self._response = response
        self._max_bytes = max_bytes
        self._exchange = exchange

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def read(self) -> bytes:
        """The body, at most ``max_bytes``.

        Raises:
            FetchError: it is longer, shorter than it was announced to be, or took too long.
        """
        try:
            return self._read()
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(reasons.describe(error)) from None

    def _read(self) -> bytes:
        announced = self._response.length
        if announced is not None and announced > self._max_bytes:
            raise FetchError(reasons.TOO_LARGE)
        chunks = []
        size = 0
        while chunk := self._response.read(_CHUNK):
            size += len(chunk)
            self._exchange.received += len(chunk)
            if size > self._max_bytes:
                raise FetchError(reasons.TOO_LARGE)
            chunks.append(chunk)
        if announced is not None and size < announced:
            raise FetchError(reasons.BODY_CUT)
        return b"".join(chunks)


@dataclass(frozen=True)
class Opener:
    """Opens URLs by the rules of the settings. Thread-safe: it keeps no state between requests."""

    settings: DownloadSettings
    _forbidden: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        words = (word.strip().lower() for word in self.settings.opt_out_headers)
        object.__setattr__(self, "_forbidden", frozenset(words))

    def open(self, url: str, exchange: Exchange) -> Body:
        """Follow ``url`` to a response with a body. The caller reads and closes it.

        Raises:
            FetchError: an HTTP status of failure, an opt-out, a refused address or redirect, …
            OSError, http.client.HTTPException: the connection failed.
        """
        budget = Budget.start(self.settings.timeout, self.settings.deadline)
        target = parse(url)
        seen: set[str] = set()
        while True:
            seen.add(target.href)
            response = self._get(target, budget)
            try:
                location = self._judge(response, exchange)
                if location is None:
                    return Body(response, self.settings.max_bytes, exchange)
            except BaseException:
                response.close()
                raise
            response.close()
            target = follow(target, location)
            if target.href in seen:
                raise FetchError(reasons.REDIRECT_LOOP)
            if len(seen) > self.settings.max_redirects:
                raise FetchError(reasons.MANY_REDIRECTS)

    def _judge(self, response: http.client.HTTPResponse, exchange: Exchange) -> str | None:
        """None for a response whose body we want, a Location to follow, or FetchError."""
        status = response.status
        if status in _REDIRECTS or status < 300:
            tags = response.headers.get_all("X-Robots-Tag") or ()
            if self._forbidden and is_disallowed(tags, self.settings.user_agent, self._forbidden):
                raise FetchError(reasons.OPT_OUT)
        if 200 <= status < 300:
            return None
        location = response.headers.get("Location")
        if status in _REDIRECTS and location:
            return str(location)
        with contextlib.suppress(ValueError):
            exchange.retry_after = max(0.0, float(response.headers.get("Retry-After") or 0))
        raise FetchError(http_error(status))

    def _get(self, target: ada_url.URL, budget: Budget) -> http.client.HTTPResponse:
        """Send one request and read the head of its response."""
        if not self.settings.allow_private_addresses and is_private_literal(target.hostname):
            raise FetchError(reasons.PRIVATE)
        connection, path = self._connection(target, budget)
        headers = {"User-Agent": self.settings.user_agent, "Accept": "*/*", "Connection": "close"}
        if self.settings.proxy and target.protocol == "http:":
            headers |= proxy_of(self.settings.proxy)[2]
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        if connection.sock:
            # The response holds the socket open for as long as it is read; nobody else needs it.
            connection.sock.close()
            connection.sock = None
        return response

    def _connection(self, target: ada_url.URL, budget: Budget) -> tuple[http.client.HTTPConnection, str]:
        """A connection that is not yet made, and the request line's target."""
        host = target.hostname.removeprefix("[").removesuffix("]")
        port = int(target.port) if target.port else _PORTS[target.protocol]
        guard = not (self.settings.allow_private_addresses or self.settings.proxy)
        kind = _Https if target.protocol == "https:" else _Http
        path = target.pathname + target.search
        if not self.settings.proxy:
            return kind(host, port, budget, guard), path
        proxy_host, proxy_port, headers = proxy_of(self.settings.proxy)
        connection = kind(proxy_host, proxy_port, budget, guard)
        if target.protocol == "https:":
            connection.set_tunnel(host, port, headers)
            return connection, path
        authority = target.hostname if not target.port else f"{target.hostname}:{target.port}"
        return connection, f"http://{authority}{path}"


def parse(url: str) -> ada_url.URL:
    """A URL by the WHATWG rules, without its fragment. Raises FetchError unless it is http(s)."""
    try:
        parsed = ada_url.URL(url)
    except (ValueError, UnicodeError):
        raise FetchError(reasons.BAD_URL) from None
    if parsed.protocol not in _PORTS:
        raise FetchError(reasons.BAD_SCHEME)
    parsed.hash = ""
    return parsed


def follow(base: ada_url.URL, location: str) -> ada_url.URL:
    """Where a Location header leads. Raises FetchError unless that is an http(s) URL."""
    with contextlib.suppress(UnicodeError):
        # Headers come as Latin-1; servers that do not escape send UTF-8.
        location = location.encode("latin-1").decode("utf-8")
    try:
        joined = ada_url.URL(location, base=base.href)
    except (ValueError, UnicodeError):
        raise FetchError(reasons.REDIRECT_BAD) from None
    if joined.protocol not in _PORTS:
        raise FetchError(reasons.REDIRECT_SCHEME)
    joined.hash = ""
    return joined


@functools.lru_cache(maxsize=8)
def proxy_of(url: str) -> tuple[str, int, dict[str, str]]:
    """Host, port and authorization header of an http proxy. Raises ValueError for another scheme."""
    parsed = ada_url.URL(url if "://" in url else f"http://{url}")
    if parsed.protocol != "http:":
        raise ValueError(f"'{url}' is not an http:// proxy")
    headers = {}
    if parsed.username:
        token = base64.b64encode(f"{parsed.username}:{parsed.password}".encode()).decode()
        headers["Proxy-Authorization"] = f"Basic {token}"
    host = parsed.hostname.removeprefix("[").removesuffix("]")
    return host, int(parsed.port or 80), headers


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The one TLS context of this process; making one costs 20 ms."""
    return ssl.create_default_context()


def dial(address: tuple[str, int], budget: Budget, guard: bool) -> socket.socket:
    """A TCP connection to the first address of a name that answers.

    Raises:
        FetchError: ``guard`` is set and the name has no public address.
        OSError: nothing answered, or the name does not resolve.
    """
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    allowed = [entry for entry in found if not guard or is_public(str(entry[4][0]))]
    if not allowed:
        raise FetchError(reasons.PRIVATE)
    failure: OSError | None = None
    for family, kind, protocol, _, socket_address in allowed:
        wait = budget.slice()
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(wait)
            connection.connect(socket_address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if guard and not is_public(str(connection.getpeername()[0])):
                raise FetchError(reasons.PRIVATE)
            return connection
        except OSError as error:
            connection.close()
            failure = error
        except FetchError:
            connection.close()
            raise
    assert failure is not None
    raise budget.check(failure) if isinstance(failure, TimeoutError) else failure


class _Http(http.client.HTTPConnection):
    """A connection all of whose waits are slices of one budget."""

    def __init__(self, host: str, port: int, budget: Budget, guard: bool) -> None:
        super().__init__(host, port)
        self.budget = budget
        self.guard = guard
        self._create_connection = self._dial
        self.response_class = self._respond  # type: ignore[assignment]

    def _dial(self, address: tuple[str, int], *_: object) -> socket.socket:
        return dial(address, self.budget, self.guard)

    def _respond(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Timed(sock, self.budget), *args, **kwargs)  # type: ignore[arg-type]


class _Https(_Http):
    default_port = http.client.HTTPS_PORT
    _tunnel_to: str | None = None

    def set_tunnel(self, host: str, port: int | None = None, headers: Any = None) -> None:
        super().set_tunnel(host, port, headers)
        self._tunnel_to = host

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.budget.slice())
        try:
            self.sock = tls_context().wrap_socket(self.sock, server_hostname=self._tunnel_to or self.host)
        except TimeoutError as error:
            raise self.budget.check(error) from None


class _Timed:
    """What `http.client.HTTPResponse` needs of a socket: a file to read, here with a deadline."""

    def __init__(self, sock: socket.socket, budget: Budget) -> None:
        self._sock = sock
        self._budget = budget

    def makefile(self, _mode: str) -> io.BufferedReader:
        raw = self._sock.makefile("rb", buffering=0)
        return io.BufferedReader(_TimedFile(raw, self._sock.settimeout, self._budget), 1 << 16)


class _TimedFile(io.RawIOBase):
    """The timeout is set anew before every read: a server that drips does not move the deadline."""

    def __init__(self, raw: socket.SocketIO, settimeout: Callable[[float], None], budget: Budget) -> None:
        self._raw = raw
        self._settimeout = settimeout
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._settimeout(self._budget.slice())
        try:
            return self._raw.readinto(buffer)
        except TimeoutError as error:
            raise self._budget.check(error) from None

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
