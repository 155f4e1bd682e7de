"""A run as it goes: what its log and the records say, again and again."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from curate.dataset import layout
from curate.dataset.workspace import Workspace
from curate.engine.progress import counted, duration_text
from curate.errors import DataError

SECONDS = 2.0


@dataclass
class Running:
    """The stage that a run is at, by its log.

    Attributes:
        stages: of the run, in order.
        stage: the one that was planned last; empty before the first.
        first, total: units that were done when it began, and all.
        done: units by now; ``rows`` of those that this run did.
        began, last: seconds since the epoch: when the stage was planned, and when anything happened.
        ended: how the run ended; empty while it goes on.
    """

    stages: tuple[str, ...] = ()
    stage: str = ""
    first: int = 0
    total: int = 0
    done: int = 0
    rows: int = 0
    began: float = 0.0
    last: float = 0.0
    ended: str = ""

    def seconds_left(self, now: float) -> float | None:
        """For this stage, by its pace so far; None before a unit is done."""
        done = self.done - self.first
        return None if done <= 0 else (now - self.began) / done * (self.total - self.done)


def running(events: Iterable[dict[str, object]]) -> Running:
    """The state that the events of a run lead to."""
    found = Running()
    for event in events:
        kind, found.last = event.get("event"), _seconds(event.get("time"))
        if kind == "run_started":
            found.stages = tuple(map(str, _list(event.get("stages"))))
        elif kind == "stage_planned":
            found.stage, found.began = str(event.get("stage")), found.last
            found.first = found.done = _int(event.get("done"))
            found.total, found.rows = found.done + _int(event.get("todo")), 0
        elif kind in ("unit_done", "unit_quarantined"):
            found.done += 1
            found.rows += _int(event.get("rows_in"))
        elif kind == "run_finished":
            found.ended = "finished"
        elif kind == "run_stopped":
            found.ended = f"stopped: {event.get('error')}"
    return found


def last_events(workspace: Workspace) -> Iterator[dict[str, object]]:
    """The events of the run that began last; a line that is not whole yet is left out."""
    logs = sorted(path for path in workspace.sizes(layout.RUNS) if path.endswith(".jsonl"))
    if not logs:
        return
    try:
        text = workspace.read_bytes(logs[-1]).decode("utf-8", "replace")
    except DataError:
        return
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def said(found: Running, now: float) -> str:
    """The state of a run on one line."""
    if not found.last:
        return "no run yet"
    if found.ended:
        return f"the last run has {found.ended}"
    ago = duration_text(max(0.0, now - found.last))
    if not found.stage:
        return f"a run has begun, {ago} ago"
    number = found.stages.index(found.stage) + 1 if found.stage in found.stages else 0
    words = [f"{found.stage} (stage {number} of {len(found.stages)})"]
    words.append(f"{found.done:,}/{counted(found.total, 'unit')}")
    if found.rows:
        words.append(f"{found.rows / max(now - found.began, 1.0):,.0f} rows/s")
    left = found.seconds_left(now)
    if left is not None:
        words.append(f"{duration_text(left)} left")
    return f"{', '.join(words)}; last heard of {ago} ago"


def watch(console: Console, workspace: Workspace, table: Iterator[RenderableType]) -> None:
    """Show the state of the run above a table, until interrupted or the run ends."""
    with Live(console=console, auto_refresh=False, screen=False) as live:
        for shown in table:
            found = running(last_events(workspace))
            live.update(Group(Text(said(found, time.time()), style="bold"), shown), refresh=True)
            if found.ended:
                return
            time.sleep(SECONDS)


def _seconds(text: object) -> float:
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
