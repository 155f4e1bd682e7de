"""The closed set of reasons for which a row can leave the pipeline.

A row never disappears without one of these. Each belongs to the stage that uses it; a reason's
value is what is stored in tables and shown in reports. Filter rules are not listed here: a filter's
reason is the name of the rule that the user wrote, plus ``missing_score`` and ``not_selected``.
"""

from __future__ import annotations

from enum import StrEnum


class IngestReason(StrEnum):
    """Why a link or a table row did not become a candidate (counted at ingest, not kept)."""

    UNREADABLE_RECORD = "unreadable_record"
    """A WARC record whose JSON does not parse or has no envelope: counts as one row."""
    TRUNCATED_INPUT = "truncated_input"
    """The file ended in mid stream; what came before it is kept. Counts as one row."""
    NO_URL = "no_url"
    """An image link or table row without a URL."""
    BAD_URL = "bad_url"
    """The URL does not parse, or cannot be resolved against its page."""
    BAD_SCHEME = "bad_scheme"
    """The resolved URL is neither http nor https (data:, javascript:, file:...)."""
    URL_TOO_LONG = "url_too_long"
    BLOCKED_DOMAIN = "blocked_domain"
    BLOCKED_EXTENSION = "blocked_extension"
    BLOCKED_URL = "blocked_url"
    OPT_OUT = "opt_out"
    """The page says noai or noimageai in its robots meta tag or its X-Robots-Tag header."""
    NO_TEXT = "no_text"
    """No alt text at all, or nothing but white space."""
    TEXT_TOO_SHORT = "text_too_short"
    TEXT_TOO_LONG = "text_too_long"
    LANGUAGE = "language"
    DUPLICATE = "duplicate"
    """The same uid came before: same text and URL."""
    UID_COLLISION = "uid_collision"
    """The same uid for another (text, url): ``md5(text + url)`` has no separator, as at the peers."""
    IN_OTHER_WORKSPACE = "in_other_workspace"


class DownloadReason(StrEnum):
    """Why a candidate has no image."""

    HTTP_401 = "http_401"
    HTTP_403 = "http_403"
    HTTP_404 = "http_404"
    HTTP_410 = "http_410"
    HTTP_429 = "http_429"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    TIMEOUT = "timeout"
    DNS = "dns"
    CONNECTION = "connection"
    TLS = "tls"
    REDIRECT = "redirect"
    """Too many redirects, or one that leaves http(s)."""
    BAD_URL = "bad_url"
    PRIVATE_ADDRESS = "private_address"
    """The host resolves to a loopback, private, link-local or otherwise non-public address."""
    OPT_OUT = "opt_out"
    """The response says noai, noimageai, noindex or noimageindex in X-Robots-Tag."""
    TOO_LARGE = "too_large"
    """The body is longer than ``max_bytes``."""
    EMPTY_BODY = "empty_body"
    BODY_TOO_SMALL = "body_too_small"
    TOO_MANY_PIXELS = "too_many_pixels"
    """More than ``max_pixels``, or decoding would take more than ``decode_memory``."""
    DECODE_ERROR = "decode_error"
    """Pillow does not load it: no image, truncated, broken."""
    DECODE_TIMEOUT = "decode_timeout"
    """A decoder that was ended after ``decode_timeout`` seconds."""
    TOO_SMALL = "too_small"
    ASPECT_RATIO = "aspect_ratio"
    OTHER = "other"
    """The engine said something this table does not know; its words are in ``error_message``."""


class EmbedReason(StrEnum):
    """Why a sample has no embedding (its row stays, with NaN vectors and a NULL similarity)."""

    MISSING_MEMBER = "missing_member"
    DECODE_ERROR = "decode_error"
    NO_TEXT = "no_text"
    NO_UID = "no_uid"
    """A row of existing embeddings whose metadata do not say which sample it is (counted, not kept)."""
    NOT_STORED = "not_stored"
    """The existing embeddings have no row of this uid."""
    BAD_VECTOR = "bad_vector"
    """A stored vector is zero, or has a NaN or an infinity."""
    CONFLICTING_VECTORS = "conflicting_vectors"
    """The existing embeddings have several rows of this uid that do not agree."""


class FilterReason(StrEnum):
    """The reasons of a filter that are not the name of one of its rules."""

    MISSING_SCORE = "missing_score"
    """A rule read NULL or NaN: never passes silently."""
    NOT_SELECTED = "not_selected"
    """Dropped by the combination of rules (an ``any`` or ``not``), not by a single rule."""
    NO_UID = "no_uid"
    """A row of a table whose uid is missing or not 32 hex digits."""
    DUPLICATE_UID = "duplicate_uid"
    """A row of a table whose uid an earlier row has."""
