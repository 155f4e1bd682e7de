"""From the words of an exception or of the engine to one `DownloadReason`.

The engine reports failures as free text only, so the text is what travels: `describe` turns any
exception into one line that is the same on every run, `classify` finds the reason for a line.
"""

from __future__ import annotations

import http
import http.client
import re
import socket
import ssl

from curate.reasons import DownloadReason

MAX_WORDS = 200
"""Characters kept of an error message."""

DEADLINE = "deadline exceeded"
PRIVATE = "the host has no public address"
OPT_OUT = "Use of image disallowed by X-Robots-Tag directive"
TOO_LARGE = "body too large"
EMPTY_BODY = "empty body"
BODY_TOO_SMALL = "body too small"
BODY_CUT = "the body ended early"
MANY_REDIRECTS = "too many redirects"
REDIRECT_LOOP = "redirect loop"
REDIRECT_SCHEME = "redirect to a scheme other than http(s)"
REDIRECT_BAD = "redirect to an invalid URL"
BAD_URL = "invalid URL"
BAD_SCHEME = "invalid URL: neither http nor https"
MANY_PIXELS = "image area too large"
MUCH_MEMORY = f"{MANY_PIXELS}: decoding takes more than download.decode_memory"
SLOW_DECODING = "decoding took longer than download.decode_timeout"
TOO_SMALL = "image too small"
ASPECT_RATIO = "aspect ratio too large"
DECODING = "Image decoding error"

_TABLE: tuple[tuple[str, DownloadReason], ...] = (
    (r"HTTP Error 401\b", DownloadReason.HTTP_401),
    (r"HTTP Error 403\b", DownloadReason.HTTP_403),
    (r"HTTP Error 404\b", DownloadReason.HTTP_404),
    (r"HTTP Error 410\b", DownloadReason.HTTP_410),
    (r"HTTP Error 429\b", DownloadReason.HTTP_429),
    (r"HTTP Error 4\d\d\b", DownloadReason.HTTP_4XX),
    (r"HTTP Error 5\d\d\b", DownloadReason.HTTP_5XX),
    (r"HTTP Error 3\d\d\b", DownloadReason.REDIRECT),
    (re.escape(OPT_OUT), DownloadReason.OPT_OUT),
    (re.escape(PRIVATE), DownloadReason.PRIVATE_ADDRESS),
    (re.escape(TOO_LARGE), DownloadReason.TOO_LARGE),
    (re.escape(EMPTY_BODY), DownloadReason.EMPTY_BODY),
    (re.escape(BODY_TOO_SMALL), DownloadReason.BODY_TOO_SMALL),
    (r"redirect", DownloadReason.REDIRECT),
    (re.escape(DECODING), DownloadReason.DECODE_ERROR),
    (re.escape(SLOW_DECODING), DownloadReason.DECODE_TIMEOUT),
    (re.escape(MANY_PIXELS), DownloadReason.TOO_MANY_PIXELS),
    (r"DecompressionBomb|decompression bomb", DownloadReason.TOO_MANY_PIXELS),
    (re.escape(TOO_SMALL), DownloadReason.TOO_SMALL),
    (re.escape(ASPECT_RATIO), DownloadReason.ASPECT_RATIO),
    (
        r"OpenCV\(|cannot identify image|image file is truncated|broken data stream",
        DownloadReason.DECODE_ERROR,
    ),
    (r"timed? ?out|deadline exceeded|ETIMEDOUT|Errno 110\b", DownloadReason.TIMEOUT),
    # A TLS stream that just ends is a broken connection, not a bad certificate.
    (r"EOF occurred in violation|UNEXPECTED_EOF", DownloadReason.CONNECTION),
    (r"SSL|TLS|certificate|hostname mismatch", DownloadReason.TLS),
    (
        r"name resolution|Name or service not known|nodename nor servname|getaddrinfo"
        r"|No address associated|Name does not resolve|non-recoverable failure",
        DownloadReason.DNS,
    ),
    (
        r"Connection refused|Connection reset|Connection aborted|Broken pipe|closed connection"
        r"|unreachable|No route to host|IncompleteRead|malformed HTTP|Tunnel connection failed"
        r"|Cannot assign requested address|" + re.escape(BODY_CUT),
        DownloadReason.CONNECTION,
    ),
    (
        r"invalid URL|unknown url type|can't contain control|no host given|nonnumeric port"
        r"|InvalidURL|'idna' codec|label (empty|too long)|ordinal not in range",
        DownloadReason.BAD_URL,
    ),
)
_RULES = tuple((re.compile(pattern, re.IGNORECASE), reason) for pattern, reason in _TABLE)

_TRANSIENT = frozenset(
    {DownloadReason.TIMEOUT, DownloadReason.CONNECTION, DownloadReason.HTTP_429, DownloadReason.HTTP_5XX}
)
_TRY_AGAIN = re.compile(r"Temporary failure in name resolution|try again", re.IGNORECASE)

_OF_THE_IMAGE = frozenset(
    {
        DownloadReason.TOO_MANY_PIXELS,
        DownloadReason.DECODE_ERROR,
        DownloadReason.DECODE_TIMEOUT,
        DownloadReason.TOO_SMALL,
        DownloadReason.ASPECT_RATIO,
    }
)

_VARYING = (
    (re.compile(r"<[\w.]+ object at 0x[0-9a-fA-F]+>"), "…"),
    (re.compile(r"\b0x[0-9a-fA-F]{6,}\b"), "…"),
    (re.compile(r"\s*\(_ssl\.c:\d+\)"), ""),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?"), "…"),
    (re.compile(r"\bport[ =]\d+", re.IGNORECASE), "port …"),
    (re.compile(r"IncompleteRead\([^)]*\)"), "IncompleteRead"),
    (re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff\s]+"), " "),
)
"""What differs between two runs of the same failure, or does not fit on one line of UTF-8."""


class FetchError(Exception):
    """A request that ended in a known failure; its text is a line of the table's vocabulary."""


def http_error(status: int) -> str:
    """The engine's words for a status code, with the standard's phrase and not the server's."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    return f"HTTP Error {status}: {phrase}"


def describe(error: BaseException) -> str:
    """One line for an exception, the same on every run, at most `MAX_WORDS` characters."""
    if isinstance(error, FetchError):
        return tidy(str(error))
    if isinstance(error, socket.gaierror):
        return tidy(f"name resolution failed: {error.strerror or error}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return tidy(f"SSL: certificate verify failed: {getattr(error, 'verify_message', 'unknown')}")
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, http.client.RemoteDisconnected):
        return "Remote end closed connection without response"
    if isinstance(error, http.client.InvalidURL):
        return BAD_URL
    if isinstance(error, http.client.IncompleteRead):
        return BODY_CUT
    if isinstance(error, http.client.HTTPException):
        # Its text quotes what the server sent.
        return f"malformed HTTP response ({type(error).__name__})"
    text = str(error)
    return tidy(text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}")


def tidy(words: str) -> str:
    """Free text as one line without object ids, addresses and ports, at most `MAX_WORDS` characters."""
    for pattern, replacement in _VARYING:
        words = pattern.sub(replacement, words)
    words = words.strip().strip(":").strip()
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"


def classify(words: str) -> DownloadReason:
    """The reason for a line of text; `OTHER` when the table does not know it."""
    return next((reason for rule, reason in _RULES if rule.search(words)), DownloadReason.OTHER)


def is_transient(words: str) -> bool:
    """Whether another try may succeed. A spent deadline is not tried again: it was long enough."""
    if words == DEADLINE:
        return False
    return classify(words) in _TRANSIENT or _TRY_AGAIN.search(words) is not None


def status_of(reason: DownloadReason | None) -> str:
    """img2dataset's three-valued status."""
    if reason is None:
        return "success"
    return "failed_to_resize" if reason in _OF_THE_IMAGE else "failed_to_download"
