"""The closed set of reasons for which a row can leave the pipeline: what each means, and what helps.

A row never disappears without one of these. Each belongs to the stage that uses it; a reason's
value is what is stored in tables and shown in reports. Filter rules are not listed here: a filter's
reason is the name of the rule that the user wrote, or one of ``FilterReason``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Reason(StrEnum):
    """A reason, as text.

    Attributes:
        meaning: a sentence for people.
        fix: the setting or the step that helps when there is too much of it; empty where nothing does.
    """

    meaning: str
    fix: str

    def __new__(cls, value: str, meaning: str, fix: str = "") -> Reason:
        """Of its stored value, with what goes with it."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning, member.fix = meaning, fix
        return member


class IngestReason(Reason):
    """Why a link or a table row did not become a candidate (counted at ingest, not kept)."""

    UNREADABLE_RECORD = "unreadable_record", "The JSON of a WAT record does not parse, or has no envelope."
    DAMAGED_RECORD = (
        "damaged_record",
        "Bytes between two good records of a file that are none: one for each such hole, however long.",
        "fetch the file again",
    )
    TRUNCATED_INPUT = (
        "truncated_input",
        "The file has no good record from here to its end; what came before is kept. Counts as one row.",
        "fetch the file again",
    )
    NO_URL = "no_url", "An image link or table row without a URL.", "ingest.sources: url_column"
    BAD_URL = "bad_url", "The URL does not parse, or cannot be resolved against its page."
    BAD_SCHEME = "bad_scheme", "The URL is neither http nor https: data:, javascript:, file: and their like."
    URL_TOO_LONG = "url_too_long", "The URL is longer than allowed.", "ingest.max_url_length"
    BLOCKED_DOMAIN = "blocked_domain", "The host is on the list of blocked domains.", "ingest.blocked_domains"
    BLOCKED_EXTENSION = (
        "blocked_extension",
        "The path of the URL has a blocked ending.",
        "ingest.blocked_extensions",
    )
    BLOCKED_URL = "blocked_url", "The URL holds a blocked text.", "ingest.blocked_url_substrings"
    OPT_OUT = (
        "opt_out",
        "The page says noai or noimageai, in its robots meta tag or its X-Robots-Tag header.",
        "ingest.drop_opt_out: false keeps them, if you may",
    )
    NO_TEXT = "no_text", "No alt text, or nothing but white space.", "ingest.sources: text_column"
    TEXT_TOO_SHORT = "text_too_short", "The alt text is shorter than allowed.", "ingest.min_text_length"
    TEXT_TOO_LONG = "text_too_long", "The alt text is longer than allowed.", "ingest.max_text_length"
    LANGUAGE = "language", "The alt text is in none of the languages that were asked for.", "ingest.languages"
    DUPLICATE = "duplicate", "An earlier row has the same text and URL."
    UID_COLLISION = (
        "uid_collision",
        "Another text and URL have the same uid: md5(text + url) has no separator, as at the peers.",
    )
    IN_OTHER_WORKSPACE = "in_other_workspace", "Another workspace holds the same text and URL."


class DownloadReason(Reason):
    """Why a candidate has no image."""

    HTTP_401 = "http_401", "The server wants a login."
    HTTP_403 = "http_403", "The server refuses.", "download.user_agent: say who you are"
    HTTP_404 = "http_404", "The server has no such file."
    HTTP_410 = "http_410", "The server says that the file is gone for good."
    HTTP_429 = "http_429", "The server was asked too often.", "download.threads: fewer at once"
    HTTP_4XX = "http_4xx", "The server refuses with another 4xx."
    HTTP_5XX = "http_5xx", "The server failed.", "download.retries, or run again later with --redo download"
    TIMEOUT = "timeout", "No answer in time.", "download.timeout, download.deadline; fewer download.threads"
    DNS = "dns", "The host's name does not resolve.", "a resolver of your own; see docs/download.md"
    CONNECTION = "connection", "The connection was refused or broke off.", "download.proxy, if you need one"
    TLS = "tls", "The certificate or the handshake failed."
    REDIRECT = "redirect", "Too many redirects, or one that leaves http(s).", "download.max_redirects"
    BAD_URL = "bad_url", "The URL cannot be requested."
    PRIVATE_ADDRESS = (
        "private_address",
        "The host resolves to a loopback, private, link-local or otherwise non-public address.",
        "download.allow_private_addresses: true, on a network of yours",
    )
    OPT_OUT = (
        "opt_out",
        "The response says noai, noimageai, noindex or noimageindex in X-Robots-Tag.",
        "download.opt_out_headers: [] asks nobody, if you may",
    )
    TOO_LARGE = "too_large", "The body is longer than allowed.", "download.max_bytes"
    EMPTY_BODY = "empty_body", "The body is empty."
    BODY_TOO_SMALL = "body_too_small", "The body is shorter than allowed.", "download.min_bytes"
    TOO_MANY_PIXELS = (
        "too_many_pixels",
        "More pixels than allowed, or decoding would take more memory than allowed.",
        "download.max_pixels, download.decode_memory",
    )
    DECODE_ERROR = (
        "decode_error",
        "What came is no picture, or one that Pillow's plain load refuses.",
        "download.truncated: keep keeps what a cut file still has",
    )
    DECODE_TIMEOUT = (
        "decode_timeout",
        "Decoding took too long.",
        "download.decode_timeout; fewer download.threads",
    )
    TOO_SMALL = "too_small", "The shorter side is smaller than allowed.", "download.min_image_size"
    ASPECT_RATIO = "aspect_ratio", "The picture is longer than allowed.", "download.max_aspect_ratio"
    OTHER = "other", "Something this table does not know; the words are in the column error_message."


class EmbedReason(Reason):
    """Why a sample has no embedding (its row stays, with NaN vectors and a NULL similarity)."""

    MISSING_MEMBER = "missing_member", "The shard's tar has no picture of this uid.", "curate verify --deep"
    DECODE_ERROR = "decode_error", "The stored picture does not decode.", "curate verify --deep"
    NO_TEXT = "no_text", "The sample has no text to embed."
    NO_UID = (
        "no_uid",
        "A row of existing embeddings does not say which sample it is (counted, not kept).",
        "embed.models: uid_column, or url_column and text_column",
    )
    NOT_STORED = "not_stored", "The existing embeddings have no row of this uid.", "embed.models: source"
    BAD_VECTOR = "bad_vector", "A stored vector is zero, or has a NaN or an infinity."
    CONFLICTING_VECTORS = (
        "conflicting_vectors",
        "The existing embeddings have several rows of this uid that do not agree.",
    )


class FilterReason(Reason):
    """The reasons of a filter that are not the name of one of its rules."""

    MISSING_SCORE = (
        "missing_score",
        "A rule read NULL or NaN, which never passes silently.",
        "run the stage that makes the column, or ask for `… IS NULL OR …`",
    )
    NOT_SELECTED = "not_selected", "Dropped by the combination of rules (an `any` or `not`), not by one rule."
    NO_UID = (
        "no_uid",
        "A row of a table has no uid, or one that is not 32 hex digits.",
        "filter.tables.uid_column",
    )
    DUPLICATE_UID = "duplicate_uid", "An earlier row of the tables has the same uid."


REASONS: Mapping[str, type[Reason]] = {
    "ingest": IngestReason,
    "download": DownloadReason,
    "embed": EmbedReason,
    "filter": FilterReason,
}
"""Verb → its reasons."""


def find_reason(verb: str, value: str) -> Reason | None:
    """What a stored reason of a stage means; None for the name of a rule."""
    return next((reason for reason in REASONS.get(verb, ()) if reason == value), None)


def with_fix(verb: str, value: str, rows: int) -> str:
    """``private_address 28: download.allow_private_addresses: true, …``: a count, and what helps."""
    reason = find_reason(verb, value)
    fix = f": {reason.fix}" if reason is not None and reason.fix else ""
    return f"{value} {rows:,}{fix}"
