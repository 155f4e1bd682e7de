"""The cheap rules on URL and text that act before a byte is downloaded, and the uid of a row."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import ada_url
import fsspec
import ftfy
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import UserError
from curate.reasons import IngestReason
from curate.text.language import detect

LAION_MAX_CHARS = 2000
"""Where LAION-400M and LAION-5B cut a text."""

BoolMask = npt.NDArray[np.bool_]

# Printable ASCII without "&": nothing in it for ftfy to mend (no entity, no escape, no mojibake).
_PLAIN_ASCII = r"^[ -%'-~]*$"
# scheme, lower-case ASCII host, optional port: the form whose host is the host whatever parser reads it.
_PLAIN_HOST = r"^https?://(?P<host>[a-z0-9._-]+)(?::[0-9]*)?(?:[/?#]|$)"

_HOST_TEXT = re.compile(r"\[[0-9A-Fa-f:.]+\]|[^/?#@\\:\s\[\]]+")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a row must be to become a candidate. Lengths are in characters (code points)."""

    min_text_length: int = 1
    """LAION: 5. Counted without surrounding white space; a text of nothing but white space never passes."""
    max_text_length: int | None = None
    max_url_length: int | None = None
    """LAION cut URLs at 2000 characters, which breaks them; we drop the row instead."""
    blocked_extensions: Collection[str] = ()
    """Extensions of the URL's path, without regard to case or a leading dot: ``svg``, ``gif``."""
    blocked_url_substrings: Collection[str] = ()
    """Substrings anywhere in the URL, without regard to ASCII case: ``data:image``, ``javascript:``."""
    blocked_domains: frozenset[str] = frozenset()
    """Domains, each of which blocks itself and what lies below it. Any spelling; kept as
    :func:`normal_domain` writes them. UserError if one is no domain."""
    languages: Collection[str] | None = None
    """Languages to keep; None keeps all and does not look."""
    min_language_probability: float = 0.0
    drop_opt_out: bool = False
    """Drop rows whose page opted out (column ``opt_out``, where the source has it)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocked_domains", _normal_domains(frozenset(self.blocked_domains)))


def clean_text(texts: pa.Array, mode: str) -> pa.Array:
    """Texts as they are (``none``) or repaired as LAION did (``laion``); same length, NULL stays NULL.

    ``laion``: newline to space, ``ftfy.fix_text``, strip, drop characters that are not printable
    (``str.isprintable``: also U+00A0), cut at 2,000 characters. Source: the LAION-5B worker. It changes the
    uid, so it runs before :func:`uid_column`.
    """
    if mode == "none":
        return texts
    if mode != "laion":
        raise ValueError(f"text mode must be 'none' or 'laion', got {mode!r}")
    plain = pc.match_substring_regex(texts, _PLAIN_ASCII).fill_null(True)
    mended = pc.utf8_slice_codeunits(pc.ascii_trim(texts, " "), 0, LAION_MAX_CHARS)
    rest = pc.filter(texts, pc.invert(plain)).to_pylist()
    if not rest:
        return mended
    return pc.replace_with_mask(mended, pc.invert(plain), pa.array(map(_laion_text, rest), texts.type))


def judge(batch: pa.RecordBatch, rules: Rules) -> tuple[pa.RecordBatch, Counter[str]]:
    """The rows that pass every rule, and how many fell to which.

    ``batch`` needs ``url`` and ``text``; ``opt_out`` and ``lang`` are used where it has them. The first
    rule that a row fails is its reason, in this order: ``no_url``, ``no_text``, ``text_too_short``,
    ``text_too_long``, ``url_too_long``, ``blocked_url``, ``blocked_extension``, ``blocked_domain``,
    ``opt_out``, ``language``. Language is last since it costs most: it is detected only for rows that
    passed the others, and only if ``languages`` is set; the kept batch then has ``lang`` and ``lang_score``.
    A row without a language, or below ``min_language_probability``, has none of the wanted ones.
    """
    dropped: Counter[str] = Counter()
    url, text = batch.column("url"), batch.column("text")
    alive = np.ones(batch.num_rows, np.bool_)
    for reason, failing in _checks(batch, url, text, rules):
        fails = failing() & alive
        if count := int(fails.sum()):
            dropped[reason] += count
            alive &= ~fails
    kept = batch if alive.all() else batch.filter(pa.array(alive))
    if rules.languages is None:
        return kept, dropped
    if "lang" not in kept.schema.names:
        lang, score = detect(kept.column("text"))
        names = [*kept.schema.names, "lang", "lang_score"]
        kept = pa.RecordBatch.from_arrays([*kept.columns, lang, score], names=names)
    wanted = _mask(pc.is_in(kept.column("lang"), pa.array(sorted(rules.languages), pa.string())))
    if rules.min_language_probability > 0 and "lang_score" in kept.schema.names:
        wanted &= _mask(pc.greater_equal(kept.column("lang_score"), rules.min_language_probability))
    if count := int((~wanted).sum()):
        dropped[IngestReason.LANGUAGE] += count
        kept = kept.filter(pa.array(wanted))
    return kept, dropped


def uid_column(text: pa.Array, url: pa.Array) -> pa.Array:
    """``md5(text + url)`` as 32 hex digits: the uid of cc2dataset and DataComp, hashed over exact strings.

    Both are string arrays of one length; NULL in either gives NULL.
    """
    joined = pc.binary_join_element_wise(text.cast(pa.binary()), url.cast(pa.binary()), b"").to_pylist()
    md5 = partial(hashlib.md5, usedforsecurity=False)
    return pa.array([None if both is None else md5(both).hexdigest() for both in joined], pa.string())


def normal_domain(domain: str) -> str:
    """A domain as the WHATWG URL standard writes hosts: lower case, punycode, no trailing dot.

    Accepts ``example.com``, ``.example.com`` and ``*.example.com``, which mean the same. Raises ValueError
    for anything that is not a host.
    """
    name = domain.strip().removeprefix("*").removeprefix(".")
    host = _host(f"http://{name}/") if _HOST_TEXT.fullmatch(name) else None
    if host is None:
        raise ValueError(f"not a domain: {domain!r}")
    return host


def domain_set(domains: Iterable[str], origin: str = "blocked_domains") -> frozenset[str]:
    """Domains for :attr:`Rules.blocked_domains`; ``origin`` is what an error message names."""
    found = set()
    for line, domain in enumerate(domains, 1):
        try:
            found.add(normal_domain(domain))
        except ValueError:
            raise UserError(
                f"{origin}: entry {line}, {domain!r}, is not a domain; write one host such as example.com"
            ) from None
    return frozenset(found)


@lru_cache(maxsize=8)  # the same list comes with every batch
def _normal_domains(domains: frozenset[str]) -> frozenset[str]:
    return domain_set(sorted(domains))


def read_domains(url: str, fs_options: Mapping[str, Any] | None = None) -> frozenset[str]:
    """Domains of a text file, one a line, ``#`` starts a comment; gzip by suffix; any fsspec URL."""
    try:
        with fsspec.open(url, "rt", encoding="utf-8", compression="infer", **(fs_options or {})) as lines:
            entries = [line.partition("#")[0].strip() for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of domains {url}: {error}") from error
    return domain_set((entry for entry in entries if entry), origin=url)


def hosts(urls: pa.Array) -> pa.Array:
    """The host of each http(s) URL as :func:`normal_domain` writes it; NULL where there is none."""
    plain = pc.struct_field(pc.extract_regex(urls, _PLAIN_HOST), "host")
    # A plain-looking host may still be an IPv4 address in disguise: normalise each distinct one.
    coded = pc.dictionary_encode(plain)
    names = pa.array([_host(f"http://{name}/") for name in coded.dictionary.to_pylist()], pa.string())
    found = names.take(coded.indices)
    odd = _mask(pc.is_null(plain)) & ~_mask(pc.is_null(urls))
    if odd.any():
        parsed = pa.array([_host(url) for url in urls.filter(pa.array(odd)).to_pylist()], pa.string())
        found = pc.replace_with_mask(found, pa.array(odd), parsed)
    return found


def _checks(
    batch: pa.RecordBatch, url: pa.Array, text: pa.Array, rules: Rules
) -> list[tuple[str, Callable[[], BoolMask]]]:
    length = pc.utf8_length(text)
    checks: list[tuple[str, Callable[[], BoolMask]]] = [
        (IngestReason.NO_URL, lambda: ~_mask(pc.greater(pc.binary_length(url), 0))),
        (IngestReason.NO_TEXT, lambda: ~_mask(pc.greater(_trimmed_length(text), 0))),
    ]
    if rules.min_text_length > 1:
        minimum = rules.min_text_length
        checks.append((IngestReason.TEXT_TOO_SHORT, lambda: _mask(pc.less(_trimmed_length(text), minimum))))
    if rules.max_text_length is not None:
        maximum = rules.max_text_length
        checks.append((IngestReason.TEXT_TOO_LONG, lambda: _mask(pc.greater(length, maximum))))
    if rules.max_url_length is not None:
        longest = rules.max_url_length
        checks.append((IngestReason.URL_TOO_LONG, lambda: _mask(pc.greater(pc.utf8_length(url), longest))))
    if rules.blocked_url_substrings:
        substrings = "|".join(re.escape(part) for part in rules.blocked_url_substrings)
        checks.append((IngestReason.BLOCKED_URL, lambda: _matches(url, substrings)))
    if rules.blocked_extensions:
        endings = "|".join(sorted(re.escape(end.lstrip(".")) for end in rules.blocked_extensions))
        path_ends = rf"^[^:/?#]+:/*[^/?#]+/[^?#]*\.(?:{endings})(?:[?#]|$)"
        checks.append((IngestReason.BLOCKED_EXTENSION, lambda: _matches(url, path_ends)))
    if rules.blocked_domains:
        blocked = rules.blocked_domains
        checks.append((IngestReason.BLOCKED_DOMAIN, lambda: _in_domains(url, blocked)))
    if rules.drop_opt_out and "opt_out" in batch.schema.names:
        checks.append((IngestReason.OPT_OUT, lambda: _mask(batch.column("opt_out"))))
    return checks


def _trimmed_length(text: pa.Array) -> pa.Array:
    return pc.utf8_length(pc.utf8_trim_whitespace(text))


def _matches(urls: pa.Array, pattern: str) -> BoolMask:
    return _mask(pc.match_substring_regex(urls, pattern, ignore_case=True))


def _in_domains(urls: pa.Array, blocked: frozenset[str]) -> BoolMask:
    coded = pc.dictionary_encode(hosts(urls))
    bad = pa.array([_blocked(host, blocked) for host in coded.dictionary.to_pylist()], pa.bool_())
    return _mask(bad.take(coded.indices))


def _blocked(host: str, blocked: frozenset[str]) -> bool:
    if host in blocked:
        return True
    return any(host[at + 1 :] in blocked for at, char in enumerate(host) if char == ".")


def _mask(condition: pa.Array) -> BoolMask:
    """A boolean array as numpy, NULL as False."""
    mask: BoolMask = condition.fill_null(False).to_numpy(zero_copy_only=False)
    return mask.copy()


def _host(url: str) -> str | None:
    try:
        return ada_url.URL(url).hostname.rstrip(".") or None
    except ValueError:
        return None


def _laion_text(text: str) -> str:
    mended = ftfy.fix_text(text.replace("\n", " ")).strip()
    return "".join(char for char in mended if char.isprintable())[:LAION_MAX_CHARS]
