"""A JSON line per event of a run, for machines and for the day after."""

from __future__ import annotations

import contextlib
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
        """Write one event with its time, at once. A full disk costs the line, not the run."""
        with contextlib.suppress(OSError):
            self._emit(event, fields)

    def _emit(self, event: str, fields: dict[str, Any]) -> None:
        if self._stream is None:
            self._stream = self.workspace.log(self.path)
        line = json.dumps({"time": utc_now(), "event": event, **fields}, ensure_ascii=False, default=str)
        self._stream.write(line.encode("utf-8", "backslashreplace") + b"\n")

    def close(self) -> None:
        """End the log."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
