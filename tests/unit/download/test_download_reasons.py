from __future__ import annotations

import http.client
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.download.reasons import (
    DEADLINE,
    MAX_WORDS,
    classify,
    describe,
    http_error,
    is_transient,
    status_of,
    tidy,
)
from curate.reasons import DownloadReason as R


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (401, R.HTTP_401), (403, R.HTTP_403), (404, R.HTTP_404), (410, R.HTTP_410), (429, R.HTTP_429),
        (400, R.HTTP_4XX), (418, R.HTTP_4XX), (451, R.HTTP_4XX), (500, R.HTTP_5XX), (503, R.HTTP_5XX),
        (304, R.REDIRECT), (300, R.REDIRECT), (999, R.OTHER),
    ],
)  # fmt: skip
def test_statuses(code: int, reason: R) -> None:
    assert classify(http_error(code)) is reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), R.TIMEOUT),
        (TimeoutError("The read operation timed out"), R.TIMEOUT),
        (OSError(110, "Connection timed out"), R.TIMEOUT),
        (socket.gaierror(-2, "Name or service not known"), R.DNS),
        (socket.gaierror(-3, "Temporary failure in name resolution"), R.DNS),
        (ConnectionRefusedError(111, "Connection refused"), R.CONNECTION),
        (ConnectionResetError(104, "Connection reset by peer"), R.CONNECTION),
        (BrokenPipeError(32, "Broken pipe"), R.CONNECTION),
        (OSError(101, "Network is unreachable"), R.CONNECTION),
        (OSError(113, "No route to host"), R.CONNECTION),
        (OSError("Tunnel connection failed: 403 Forbidden"), R.CONNECTION),
        (http.client.RemoteDisconnected("Remote end closed connection without response"), R.CONNECTION),
        (http.client.BadStatusLine("gar\x00bage"), R.CONNECTION),
        (http.client.LineTooLong("header line"), R.CONNECTION),
        (http.client.IncompleteRead(b"x" * 17, 4), R.CONNECTION),
        (http.client.InvalidURL("bad"), R.BAD_URL),
        (UnicodeError("encoding with 'idna' codec failed (label too long)"), R.BAD_URL),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"), R.TLS),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1006)"), R.CONNECTION),
        (ssl.SSLCertVerificationError("certificate verify failed"), R.TLS),
        (RuntimeError("something new"), R.OTHER),
    ],
)
def test_exceptions(error: Exception, reason: R) -> None:
    assert classify(describe(error)) is reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        # What the engine, urllib and OpenCV say by themselves.
        ("<urlopen error [Errno -2] Name or service not known>", R.DNS),
        ("<urlopen error timed out>", R.TIMEOUT),
        ("<urlopen error unknown url type: htp>", R.BAD_URL),
        ("URL can't contain control characters. '/a b' (found at least ' ')", R.BAD_URL),
        ("nonnumeric port: 'x'", R.BAD_URL),
        ("'ascii' codec can't encode character: ordinal not in range(128)", R.BAD_URL),
        ("Use of image disallowed by X-Robots-Tag directive", R.OPT_OUT),
        ("Image decoding error", R.DECODE_ERROR),
        ("image too small", R.TOO_SMALL),
        ("image area too large", R.TOO_MANY_PIXELS),
        ("aspect ratio too large", R.ASPECT_RATIO),
        ("OpenCV(4.11.0) resize.cpp:3789: error: (-215:Assertion failed) inv_scale_x > 0", R.DECODE_ERROR),
        ("Image decoding error: The read operation timed out", R.DECODE_ERROR),
    ],
)
def test_the_engine_s_words(words: str, reason: R) -> None:
    assert classify(words) is reason


def test_only_what_may_pass_is_tried_again() -> None:
    assert is_transient("timed out")
    assert is_transient(http_error(503))
    assert is_transient(http_error(429))
    assert is_transient("[Errno 104] Connection reset by peer")
    assert is_transient("name resolution failed: Temporary failure in name resolution")
    assert not is_transient("name resolution failed: Name or service not known")
    assert not is_transient(http_error(404))
    assert not is_transient(DEADLINE)
    assert not is_transient("Image decoding error")


def test_words_that_vary_are_the_same() -> None:
    def words(i: int) -> str:
        return tidy(f"cannot identify <_io.BytesIO object at 0x7f{i:010x}> from 10.0.0.{i}:{i} (_ssl.c:{i})")

    assert words(1) == words(99)
    assert "identify" in words(1)


@given(st.text(max_size=400))
def test_words_fit_on_a_line(text: str) -> None:
    words = tidy(text)
    assert len(words) <= MAX_WORDS
    assert len(words.splitlines()) <= 1
    assert tidy(words) == words
    words.encode()
    assert isinstance(classify(words), R)


def test_status() -> None:
    assert status_of(None) == "success"
    assert {r for r in R if status_of(r) == "failed_to_resize"} == {
        R.DECODE_ERROR, R.DECODE_TIMEOUT, R.TOO_MANY_PIXELS, R.TOO_SMALL, R.ASPECT_RATIO,
    }  # fmt: skip
