"""The X-Robots-Tag header: what it forbids, and to whom.

Grammar after Google's "Robots meta tag" reference: a header is a comma-separated list of
directives; one may be preceded by ``agent:``, which then holds for those after it, too. Directives
with a value also have a colon, and the value of ``unavailable_after`` may hold commas and colons.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_AGENT = re.compile(r"\*|[a-z_][a-z0-9_.\-/]*")
_MEANS = {"none": ("noindex", "nofollow")}


def directives(header: str, user_agent: str) -> set[str]:
    """The lower-case directives of one header line that concern ``user_agent``.

    A directive of a named agent counts when the name is part of ``user_agent``, or is ``*``.
    """
    agent = user_agent.lower()
    concerned = True
    found: set[str] = set()
    for part in header.lower().split(","):
        name, colon, rest = part.partition(":")
        while colon and name.strip() not in _VALUED and _AGENT.fullmatch(name.strip()):
            concerned = name.strip() == "*" or name.strip() in agent
            part = rest
            name, colon, rest = part.partition(":")
        if concerned and not colon:
            found.add(part.strip())
    return {meaning for word in found if word for meaning in (word, *_MEANS.get(word, ()))}


def is_disallowed(headers: Iterable[str], user_agent: str, forbidden: Collection[str]) -> bool:
    """Whether any X-Robots-Tag line says one of the ``forbidden`` (lower-case) directives to us."""
    return any(not directives(header, user_agent).isdisjoint(forbidden) for header in headers)
