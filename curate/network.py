"""One short question to a server: can this be fetched?"""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

SECONDS = 5.0
"""For the answer to one request, whatever is behind the network."""


def why_not_url(url: str, headers: dict[str, str] | None = None) -> str:
    """Why a URL cannot be fetched; empty when it can, or when only fetching it would tell."""
    request = urllib.request.Request(url, method="HEAD", headers=headers or {})
    try:
        _OPENER.open(request, timeout=SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        return _status(error.code, url, bool(headers))
    except (OSError, ValueError) as error:
        return _network(error, url)
    return ""


def _status(code: int, url: str, with_token: bool) -> str:
    if code in (404, 410):
        return f"{url} does not exist"
    if code in (401, 403):
        login = "your login may not read it" if with_token else "it wants a login"
        return f"{url}: {login}"
    # A redirect is followed by whoever fetches; other answers may be about HEAD alone.
    return ""


def _network(error: Exception, url: str) -> str:
    host = urllib.parse.urlsplit(url).hostname
    cause: Any = getattr(error, "reason", error)
    if isinstance(cause, socket.gaierror):
        return f"the name {host} does not resolve"
    if isinstance(cause, TimeoutError):
        return f"{host} does not answer within {SECONDS:g} s"
    said = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(cause)
    return f"{host}: {said}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An answer that says where the file is, is an answer."""

    def redirect_request(self, *_: Any) -> None:
        """Not followed."""


_OPENER = urllib.request.build_opener(_NoRedirects)
