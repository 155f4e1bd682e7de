from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curate.config.models import DownloadSettings
from curate.download import opener as opener_module
from curate.download import reasons
from curate.download.fetch import Fetched, fetch
from curate.download.opener import Opener, proxy_of
from curate.download.reasons import classify
from curate.reasons import DownloadReason as R
from tests.unit.download.web import (
    Answer,
    Site,
    body,
    chunked,
    drip,
    flaky,
    hang_up,
    no_length,
    picture,
    raw,
    redirect,
    reset,
    settings,
    silence,
    status,
)

DATA = picture()


def get(url: str, **changes: Any) -> Fetched:
    config = settings(**changes)
    return fetch(url, config, Opener(config))


def reason_of(result: Fetched) -> R | None:
    assert (result.body is None) == bool(result.error)
    return classify(result.error) if result.error else None


@pytest.mark.parametrize("answer", [body(DATA), no_length(DATA), chunked(DATA, 100), chunked(DATA, 10**6)])
def test_a_body(site: Site, answer: Answer) -> None:
    result = get(site.add("/a.jpg", answer))
    assert result == Fetched(DATA, "", len(DATA), 1)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (401, R.HTTP_401), (403, R.HTTP_403), (404, R.HTTP_404), (410, R.HTTP_410), (429, R.HTTP_429),
        (400, R.HTTP_4XX), (500, R.HTTP_5XX), (503, R.HTTP_5XX), (304, R.REDIRECT),
    ],
)  # fmt: skip
def test_statuses(site: Site, code: int, reason: R) -> None:
    assert reason_of(get(site.add("/x", status(code)))) is reason


def test_headers_are_ours(site: Site) -> None:
    get(site.add("/a", body(DATA)), user_agent="my-bot/2")
    assert site.headers["/a"].get_all("User-Agent") == ["my-bot/2"]
    assert "Authorization" not in site.headers["/a"]


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "//example.com/a", "http://", "http://exa mple.com/", "http://a:99999/", "UNLIKELY",
     "file:///etc/passwd", "ftp://127.0.0.1/x", "data:image/png;base64,AAAA", "javascript:alert(1)"],
)  # fmt: skip
def test_bad_urls(url: str) -> None:
    result = get(url)
    assert reason_of(result) is R.BAD_URL
    assert result.tries == 0


def test_no_url_at_all() -> None:
    config = settings()
    assert reason_of(fetch(None, config, Opener(config))) is R.BAD_URL


def test_odd_urls_are_normalised(site: Site) -> None:
    site.add("/%C3%A4%20b.jpg", body(DATA))
    assert get(f"  {site.base}/ä b.jpg#part\n").body == DATA


def test_host_label_too_long() -> None:
    assert reason_of(get("http://" + "a" * 70 + ".example/")) in (R.BAD_URL, R.DNS)


class TestRedirects:
    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_followed(self, site: Site, code: int) -> None:
        site.add("/b", body(DATA))
        assert get(site.add("/a", redirect("/b?x=1", code))).body == DATA

    def test_unescaped_utf8_location(self, site: Site) -> None:
        site.add("/%C3%A4", body(DATA))
        answer = raw("HTTP/1.1 302 Found\r\nLocation: /ä\r\nContent-Length: 0\r\n\r\n".encode())
        assert get(site.add("/a", answer)).body == DATA

    def test_counted(self, site: Site) -> None:
        for i in range(3):
            site.add(f"/{i}", redirect(f"/{i + 1}"))
        url = site.base + "/0"
        site.add("/3", body(DATA))
        assert get(url, max_redirects=3).body == DATA
        assert reason_of(get(url, max_redirects=2)) is R.REDIRECT
        assert reason_of(get(url, max_redirects=0)) is R.REDIRECT

    def test_loop(self, site: Site) -> None:
        site.add("/b", redirect("/a#again"))
        result = get(site.add("/a", redirect("/b")), max_redirects=100)
        assert result.error == reasons.REDIRECT_LOOP
        assert reason_of(result) is R.REDIRECT
        assert sum(site.hits.values()) == 2

    @pytest.mark.parametrize(
        "location", ["file:///etc/passwd", "ftp://127.0.0.1/", "data:,x", "http://", "http://[::"]
    )
    def test_confined(self, site: Site, location: str) -> None:
        assert reason_of(get(site.add("/a", redirect(location)))) is R.REDIRECT

    def test_without_location(self, site: Site) -> None:
        assert reason_of(get(site.add("/a", status(302)))) is R.REDIRECT


class TestPrivateAddresses:
    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "0177.0.0.1", "127.1", "[::1]", "0.0.0.0",
         "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "sub.localhost"],
    )  # fmt: skip
    def test_literal(self, site: Site, host: str) -> None:
        site.add("/a", body(DATA))
        result = get(f"http://{host}:{site.port}/a", allow_private_addresses=False)
        assert reason_of(result) is R.PRIVATE_ADDRESS
        assert not site.hits

    def test_resolved(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        resolve_to(monkeypatch, "127.0.0.1")
        site.add("/a", body(DATA))
        url = f"http://public.example:{site.port}/a"
        assert reason_of(get(url, allow_private_addresses=False)) is R.PRIVATE_ADDRESS
        assert not site.hits
        assert get(url, allow_private_addresses=True).body == DATA

    def test_the_peer_itself_is_judged(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """A route that leads to another peer than the name server said is refused, too."""
        resolve_to(monkeypatch, "127.0.0.1")
        answers = iter([True, False])
        monkeypatch.setattr(opener_module, "is_public", lambda _: next(answers))
        site.add("/a", body(DATA))
        result = get(f"http://public.example:{site.port}/a", allow_private_addresses=False)
        assert reason_of(result) is R.PRIVATE_ADDRESS
        assert not site.hits

    @pytest.mark.parametrize(
        "target", ["http://127.0.0.1:{port}/secret", "http://inner.example:{port}/secret"]
    )
    def test_after_a_redirect(self, site: Site, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
        """The first host counts as public here, the one it redirects to does not."""
        real = socket.getaddrinfo

        def lookup(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
            return real("127.0.0.2" if host == "public.example" else "127.0.0.1", port, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        monkeypatch.setattr(opener_module, "is_public", lambda address: address == "127.0.0.2")
        site.add("/secret", body(DATA))
        with listening("127.0.0.2", redirect_bytes(target.format(port=site.port))) as port:
            result = get(f"http://public.example:{port}/a", allow_private_addresses=False)
        assert reason_of(result) is R.PRIVATE_ADDRESS
        assert not site.hits


def resolve_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _h, port, *a, **k: real(address, port, *a, **k))


def redirect_bytes(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@contextlib.contextmanager
def listening(host: str, answer: bytes) -> Iterator[int]:
    """A server that gives every connection the same bytes."""
    with socket.create_server((host, 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


class TestTime:
    def test_dripping_body(self, site: Site) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        result = get(site.add("/a", drip(site, head)), deadline=0.4)
        assert result.error == reasons.DEADLINE
        assert reason_of(result) is R.TIMEOUT

    def test_dripping_chunks(self, site: Site) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n"
        assert get(site.add("/a", drip(site, head)), deadline=0.4).error == reasons.DEADLINE

    @pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: "])
    def test_dripping_head(self, site: Site, head: bytes) -> None:
        assert get(site.add("/a", drip(site, head)), deadline=0.4).error == reasons.DEADLINE

    def test_endless_continues(self, site: Site) -> None:
        def answer(handler: Any) -> None:
            while not site.closing.wait(0.01):
                handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

        assert get(site.add("/a", answer), deadline=0.4).error == reasons.DEADLINE

    def test_silence(self, site: Site) -> None:
        result = get(site.add("/a", silence(site)), timeout=0.3)
        assert result.error == "timed out"
        assert reason_of(result) is R.TIMEOUT

    def test_redirects_share_the_deadline(self, site: Site) -> None:
        def slow(i: int) -> Answer:
            def answer(handler: Any) -> None:
                site.closing.wait(0.15)
                redirect(f"/{i + 1}")(handler)

            return answer

        for i in range(50):
            site.add(f"/{i}", slow(i))
        assert get(site.base + "/0", deadline=0.5, max_redirects=60).error == reasons.DEADLINE

    def test_no_answer_to_the_tls_handshake(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            result = get(f"https://127.0.0.1:{server.getsockname()[1]}/", timeout=0.3)
        assert reason_of(result) is R.TIMEOUT


class TestBody:
    def test_too_large(self, site: Site) -> None:
        data = b"x" * 1001
        for i, answer in enumerate([body(data), no_length(data), chunked(data, 64)]):
            url = site.add(f"/{i}", answer)
            assert reason_of(get(url, max_bytes=1000)) is R.TOO_LARGE
            assert get(url, max_bytes=1001).body == data

    def test_too_large_is_known_before_it_is_read(self, site: Site) -> None:
        result = get(site.add("/a", body(b"x", length=10**12)), max_bytes=1000)
        assert reason_of(result) is R.TOO_LARGE
        assert result.received == 0

    def test_endless_body_is_not_read_to_its_end(self, site: Site) -> None:
        def answer(handler: Any) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not site.closing.is_set():
                handler.wfile.write(b"x" * 65536)

        result = get(site.add("/a", answer), max_bytes=300_000)
        assert reason_of(result) is R.TOO_LARGE
        assert result.received < 1_000_000

    def test_length_lies(self, site: Site) -> None:
        assert reason_of(get(site.add("/more", body(DATA, length=len(DATA) + 1)))) is R.CONNECTION
        assert get(site.add("/less", body(DATA, length=100))).body == DATA[:100]
        assert get(site.add("/negative", body(DATA, length=-5))).body == DATA
        assert reason_of(get(site.add("/cut", chunked(DATA, 100, end=False)))) is R.CONNECTION

    def test_empty_and_small(self, site: Site) -> None:
        assert reason_of(get(site.add("/a", body(b"")))) is R.EMPTY_BODY
        assert reason_of(get(site.add("/b", status(204)))) is R.EMPTY_BODY
        url = site.add("/c", body(b"x" * 10))
        assert reason_of(get(url, min_bytes=11)) is R.BODY_TOO_SMALL
        assert get(url, min_bytes=10).body == b"x" * 10


class TestOptOut:
    def test_header(self, site: Site) -> None:
        url = site.add("/a", body(DATA, X_Robots_Tag="noai"))
        result = get(url)
        assert reason_of(result) is R.OPT_OUT
        assert result.received == 0
        assert get(url, opt_out_headers=()).body == DATA
        assert get(url, opt_out_headers=("noindex",)).body == DATA
        assert reason_of(get(url, opt_out_headers=(" NoAI ",))) is R.OPT_OUT

    def test_agents(self, site: Site) -> None:
        url = site.add("/a", body(DATA, X_Robots_Tag="otherbot: nofollow, my-bot: noai"))
        assert get(url).body == DATA
        assert reason_of(get(url, user_agent="my-bot/1.0")) is R.OPT_OUT

    def test_of_a_redirect(self, site: Site) -> None:
        site.add("/b", body(DATA))
        url = site.add("/a", status(302, Location="/b", X_Robots_Tag="none"))
        assert reason_of(get(url)) is R.OPT_OUT
        assert not site.hits["/b"]


class TestConnection:
    @pytest.mark.parametrize(
        "answer",
        [
            reset, hang_up, raw(b"\x00\xff garbage\r\n\r\n"), raw(b"HTTP/1.1 abc\r\n\r\n"),
            raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"\r\n"),
            raw(b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000),
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ],
    )  # fmt: skip
    def test_broken(self, site: Site, answer: Answer) -> None:
        assert reason_of(get(site.add("/a", answer))) is R.CONNECTION

    def test_refused(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        assert reason_of(get(f"http://127.0.0.1:{port}/")) is R.CONNECTION

    def test_unknown_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def lookup(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        result = get("http://no.such.example/", retries=3)
        assert reason_of(result) is R.DNS
        assert result.tries == 1

    def test_plain_http_where_tls_is_expected(self, site: Site) -> None:
        assert reason_of(get(site.base.replace("http:", "https:") + "/a")) is R.TLS

    def test_the_second_address_is_tried(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        real = socket.getaddrinfo

        def lookup(_host: str, port: int, *args: Any, **kwargs: Any) -> Any:
            return real("127.0.0.9", port, *args, **kwargs) + real("127.0.0.1", port, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        site.add("/a", body(DATA))
        assert get(f"http://two.example:{site.port}/a").body == DATA


class TestTls:
    def test_self_signed_is_refused_and_trusted_is_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate = tmp_path / "cert.pem"
        certificate.write_text(CERTIFICATE)
        with https_server(certificate) as port:
            url = f"https://127.0.0.1:{port}/a"
            result = get(url, retries=2)
            assert reason_of(result) is R.TLS
            assert result.tries == 1
            trusting = ssl.create_default_context(cafile=str(certificate))
            monkeypatch.setattr(opener_module, "tls_context", lambda: trusting)
            assert get(url).body == DATA
            assert reason_of(get(f"https://localhost:{port}/a")) is R.TLS


CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggKm58GlOFOJK7Y/p
UDSx+tIV+/bz0W/IqlO/7yrV87ChRANCAAS0T3NX6Zgw6rPEAWFLflCIAHG14FAE
bw5zJA2tDuJstT40EpSy+A1w0QyPrH1y4T0oBSfk0d+/Z1HO2g276tf+
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBkDCCATagAwIBAgIUVkGpyLjTJwFYvMvLMiy22ug3T1UwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyMTAxNDUxMloYDzIxMjYxMDI4
MDE0NTEyWjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAS0T3NX6Zgw6rPEAWFLflCIAHG14FAEbw5zJA2tDuJstT40EpSy+A1w
0QyPrH1y4T0oBSfk0d+/Z1HO2g276tf+o2QwYjAdBgNVHQ4EFgQUJh/h9MDrqIsR
FtcsieUJVM5vK1gwHwYDVR0jBBgwFoAUJh/h9MDrqIsRFtcsieUJVM5vK1gwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUC
IQDdKlDSb9QN1O1RDN0LplDbRhWK5Q4dmEh9hkYCWB1PxQIgc2NUetSrLbcLLjXU
ziv2673xVFmA8MbbtjrSbEHeGdU=
-----END CERTIFICATE-----
"""
"""Self-signed, for the address 127.0.0.1, valid until 2126; with its key, which guards nothing."""


@contextlib.contextmanager
def https_server(certificate: Path) -> Iterator[int]:
    site = Site()
    site.add("/a", body(DATA))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
    site.server.handle_error = lambda *_: None  # type: ignore[method-assign]
    try:
        yield site.port
    finally:
        site.stop()


class TestRetries:
    @pytest.mark.parametrize("failure", [status(503), status(429), reset, hang_up, body(DATA, length=10**6)])
    def test_what_may_pass(self, site: Site, failure: Answer) -> None:
        url = site.add("/a", flaky(2, failure, body(DATA)))
        result = get(url, retries=2)
        assert result.body == DATA
        assert result.tries == 3

    def test_no_more_than_asked_for(self, site: Site) -> None:
        assert reason_of(get(site.add("/a", status(500)), retries=3)) is R.HTTP_5XX
        assert site.hits["/a"] == 4

    @pytest.mark.parametrize(
        "answer", [status(404), status(403), status(304), body(b""), redirect("ftp://x/")]
    )
    def test_what_stays(self, site: Site, answer: Answer) -> None:
        result = get(site.add("/a", answer), retries=3)
        assert result.error
        assert site.hits["/a"] == 1

    def test_pause(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("curate.download.fetch.MAX_PAUSE", 10.0)
        pauses: list[float] = []
        config = settings(retries=3)
        answers = iter([status(429, Retry_After="3"), status(503, Retry_After="99999"), status(500)])
        site.add("/a", lambda handler: next(answers, body(DATA))(handler))
        assert fetch(site.base + "/a", config, Opener(config), pauses.append).body == DATA
        assert pauses == [3.0, 10.0, 2.0]


class TestProxy:
    def test_request_goes_to_the_proxy(self, site: Site) -> None:
        site.answers["http://public.example/a"] = body(DATA)
        proxy = f"http://user:word@127.0.0.1:{site.port}"
        result = get("http://public.example/a?x=1", proxy=proxy, allow_private_addresses=False)
        assert result.body == DATA
        headers = site.headers["http://public.example/a"]
        assert headers["Host"] == "public.example"
        assert headers["Proxy-Authorization"] == "Basic dXNlcjp3b3Jk"

    def test_private_literals_are_refused_all_the_same(self, site: Site) -> None:
        result = get("http://127.0.0.1/a", proxy=site.base, allow_private_addresses=False)
        assert reason_of(result) is R.PRIVATE_ADDRESS
        assert not site.hits

    def test_tunnel_refused(self, site: Site) -> None:
        result = get("https://public.example/a", proxy=site.base, allow_private_addresses=False)
        assert reason_of(result) is R.CONNECTION

    def test_addresses(self) -> None:
        assert proxy_of("http://127.0.0.1:3128") == ("127.0.0.1", 3128, {})
        assert proxy_of("cache.lan:8080")[:2] == ("cache.lan", 8080)
        with pytest.raises(ValueError, match="not an http"):
            proxy_of("socks5://127.0.0.1:1080")

    def test_the_environment_s_proxy_is_not_used(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert get(site.add("/a", body(DATA))).body == DATA


def test_others_keep_their_urlopen(site: Site) -> None:
    """The engine's opener is replaced for the engine alone."""
    import urllib.request

    before = urllib.request.urlopen
    get(site.add("/a", body(DATA)))
    assert urllib.request.urlopen is before
    assert urllib.request._opener is None or not isinstance(urllib.request._opener, Opener)


def test_settings_of_the_defaults() -> None:
    assert not DownloadSettings().allow_private_addresses
