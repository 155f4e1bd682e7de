"""What a unit tells of itself while it runs, for whoever watches: rows so far, and why some are gone.

A stage calls ``report`` whenever it likes; at most one report a second leaves the process. Reports are for
eyes only: nothing is lost with one that is lost, and what counts is in the commit record.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

TOPIC = "curate-progress"
"""Of the events by which Dask carries reports to the driver."""

SECONDS = 1.0
"""Between two reports of a unit."""


@dataclass(frozen=True)
class Report:
    """The rows of a unit so far.

    Attributes:
        rows: that were read; ``kept`` of them came out.
        drops: reason → rows.
    """

    stage: str
    unit: str
    rows: int
    kept: int
    drops: Mapping[str, int] = field(default_factory=dict)


Send = Callable[[Report], None]


class _Reporter:
    def __init__(self, stage: str, unit: str, send: Send) -> None:
        self.stage, self.unit, self.send = stage, unit, send
        self.last = time.monotonic()

    def report(self, rows: int, kept: int, drops: Mapping[str, int]) -> None:
        now = time.monotonic()
        if now - self.last >= SECONDS:
            self.last = now
            self.send(Report(self.stage, self.unit, rows, kept, dict(drops)))


_current: contextvars.ContextVar[_Reporter | None] = contextvars.ContextVar("reporter", default=None)


@contextlib.contextmanager
def reporting(stage: str, unit: str, send: Send | None) -> Iterator[None]:
    """Let ``report`` in this thread speak for a unit."""
    token = _current.set(None if send is None else _Reporter(stage, unit, send))
    try:
        yield
    finally:
        _current.reset(token)


def report(rows: int, kept: int, drops: Mapping[str, int]) -> None:
    """Tell how far the unit is that runs in this thread; nothing happens when nobody listens.

    Args:
        rows: read so far.
        kept: of them, those that came out.
        drops: reason → rows.
    """
    reporter = _current.get()
    if reporter is not None:
        reporter.report(rows, kept, drops)


def send_to_scheduler(found: Report) -> None:
    """From a Dask worker to whoever has subscribed to ``TOPIC``."""
    from distributed import get_worker

    get_worker().log_event(TOPIC, vars(found))


def received(event: Any) -> Report | None:
    """The report in an event of Dask's; None for one of another version."""
    try:
        return Report(**event[1])
    except (TypeError, LookupError):
        return None
