from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from curate.config.loading import check
from curate.dataset.workspace import Workspace
from curate.engine.engine import Engine
from curate.inspect.summary import print_summary
from curate.inspect.watch import last_events, running, said, watch
from tests.unit.engine.test_engine import Letters


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}Z"


STARTED = {"time": at(0), "event": "run_started", "stages": ["parse", "download"]}
PLANNED = {"time": at(10), "event": "stage_planned", "stage": "download", "todo": 8, "done": 2}
DONE = {"time": at(20), "event": "unit_done", "stage": "download", "rows_in": 500}


def test_time_left_is_that_of_the_pace_of_this_run() -> None:
    """Two of eight units in ten seconds: thirty are left. What was done before says nothing of the pace."""
    found = running([STARTED, PLANNED, DONE, DONE])
    assert (found.stage, found.first, found.done, found.total, found.rows) == ("download", 2, 4, 10, 1_000)
    assert found.seconds_left(found.began + 10) == 30
    line = said(found, found.began + 10)
    assert line == "download (stage 2 of 2), 4/10 units, 100 rows/s, 30.0 s left; last heard of 0.0 s ago"


def test_nothing_is_promised_before_a_unit_is_done() -> None:
    found = running([STARTED, PLANNED])
    assert found.seconds_left(found.began + 10) is None
    assert said(found, found.began + 10) == "download (stage 2 of 2), 2/10 units; last heard of 10.0 s ago"
    assert said(running([STARTED]), running([STARTED]).last + 3) == "a run has begun, 3.0 s ago"
    assert said(running([]), 0.0) == "no run yet"


def test_how_a_run_ended() -> None:
    ended = {"time": at(30), "event": "run_stopped", "error": "UserError: no"}
    assert said(running([STARTED, PLANNED, ended]), 0.0) == "the last run has stopped: UserError: no"
    assert said(running([STARTED, {**ended, "event": "run_finished"}]), 0.0) == "the last run has finished"


def test_the_log_of_a_real_run(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path))
    from curate.config.models import RunSettings

    Engine(space, RunSettings(cluster="synchronous"), Console(quiet=True)).run([Letters("abc")])
    found = running(last_events(space))
    assert (found.stage, found.done, found.total, found.rows, found.ended) == ("letters", 3, 3, 9, "finished")
    (log,) = (tmp_path / ".curate" / "runs").glob("*.jsonl")
    with log.open("ab") as stream:  # a newer log whose last line is not whole yet
        stream.write(json.dumps(STARTED).encode()[:20])
    assert running(last_events(space)).ended == "finished"
    shown = io.StringIO()
    watch(Console(file=shown), space, iter(["a table"]))
    assert "the last run has finished" in shown.getvalue()
    assert "a table" in shown.getvalue()


def test_the_summary_names_what_is_there(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path))
    config = check({"filter": {"experiments": {"e": {"rules": {"r": "width > 3"}}}}})
    out = io.StringIO()
    print_summary(Console(file=out, width=300), space, config)
    assert "curate status -w" in out.getvalue()
    assert "curate search" not in out.getvalue()
    assert "kept" not in out.getvalue()
    from tests.unit.filter.filter_pool import commit

    commit(space, "filter/e", "all", [])
    space.write_bytes("report/e/index.html", b"<html>")
    out = io.StringIO()
    print_summary(Console(file=out, width=300), space, config)
    assert f"e  kept 0 of 0  {tmp_path}/report/e/index.html" in out.getvalue()
