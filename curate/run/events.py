"""A JSON line per event of a run, for machines and for the day after."""

from __future__ import annotations

import datetime
import json
import os
from typing import IO, Any

from curate.dataset import layout
from curate.dataset.workspace import Workspace


def utc_now() -> str:
    """Now, UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class EventLog:
    """Appends events to ``.curate/runs/<start>-<pid>.jsonl``.

    A store that cannot append gets the file when the log is closed.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.path = f"{layout.RUNS}/{utc_now().replace(':', '')}-{os.getpid()}.jsonl"
        self._stream: IO[bytes] | None = None

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event with its time; lines are flushed at once."""
        if self._stream is None:
            self._stream = self.workspace.log(self.path)
        line = json.dumps({"time": utc_now(), "event": event, **fields}, ensure_ascii=False, default=str)
        self._stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
        if self.workspace.is_local:
            self._stream.flush()

    def close(self) -> None:
        """End the log."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
