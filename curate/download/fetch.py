"""A URL to its bytes, or to the reason why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from curate.config.models import DownloadSettings
from curate.download import engine, reasons
from curate.download.opener import Exchange, Opener, parse
from curate.download.reasons import FetchError

MAX_PAUSE = 10.0
"""Seconds; a server that asks for a longer pause before the next try waits in vain."""


@dataclass(frozen=True)
class Fetched:
    """The result of all tries at one URL. ``body`` is None exactly when ``error`` is not empty."""

    body: bytes | None
    error: str = ""
    received: int = 0
    """Body bytes over all tries."""
    tries: int = 1


def fetch(
    url: str | None, settings: DownloadSettings, opener: Opener, sleep: Callable[[float], None] = time.sleep
) -> Fetched:
    """GET ``url``; after a failure that may pass, again, ``settings.retries`` times at most."""
    exchange = Exchange()
    tries = 0
    error = reasons.BAD_URL
    try:
        target = parse(url or "").href
    except FetchError as bad:
        return Fetched(None, str(bad), tries=0)
    while tries <= settings.retries:
        exchange.retry_after = 0.0
        tries += 1
        try:
            body = engine.fetch(opener, target, exchange)
            error = _judge(body, settings)
            return Fetched(None if error else body, error, exchange.received, tries)
        except FetchError as failure:
            error = str(failure)
        if not reasons.is_transient(error) or tries > settings.retries:
            break
        sleep(min(MAX_PAUSE, max(exchange.retry_after, 0.5 * 2 ** (tries - 1))))
    return Fetched(None, error, exchange.received, tries)


def _judge(body: bytes, settings: DownloadSettings) -> str:
    if not body:
        return reasons.EMPTY_BODY
    return reasons.BODY_TOO_SMALL if len(body) < settings.min_bytes else ""
