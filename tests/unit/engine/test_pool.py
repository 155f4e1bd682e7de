"""A cluster that cannot be had, or is lost, is one line and no traceback."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from curate.config.models import RunSettings
from curate.dataset.workspace import FileRef, Workspace
from curate.engine import pool
from curate.engine.engine import Engine
from curate.engine.pool import check_cluster, start_pool
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import ClusterLostError, UserError


class Slow(Stage):
    """Some units that take their time."""

    def __init__(self, units: int = 6, seconds: float = 0.5) -> None:
        self.name, self.settings = "slow", {}
        self.number, self.seconds = units, seconds

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        for number in range(self.number):
            yield Unit(f"{number}", (FileRef("in", 1, "d"),))

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        time.sleep(self.seconds)
        return Outcome((workspace.write_bytes(f"out/{unit.name}", b"x"),), 1, 1)


def engine(path: Path, **settings: Any) -> Engine:
    return Engine(Workspace(str(path)), RunSettings(**settings), Console(quiet=True))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cluster": "dask"}, r"run\.cluster: 'dask' is none of local, synchronous, slurm, nor an address"),
        ({"memory_limit": "bogus"}, r"run\.memory_limit: 'bogus' is no size; write it as 8GiB"),
        ({"memory_limit": "1MB"}, r"run\.memory_limit: 1MB is too little for a worker; at least 256MiB"),
        ({"workers": 100_000}, r"run\.workers: 100,000 worker processes on \d+ cores; at most \d+"),
        (
            {"cluster": "tcp://127.0.0.1:1"},
            r"run\.cluster: nothing answers at tcp://127\.0\.0\.1:1 .*refused",
        ),
        ({"cluster": "tcp://127.0.0.1:x"}, r"run\.cluster: nothing answers at tcp://127\.0\.0\.1:x"),
        (
            {"cluster": "tcp://no-such-host.invalid:8786"},
            r"run\.cluster: nothing answers at tcp://no-such-host",
        ),
    ],
)
def test_a_cluster_that_cannot_be_is_said_before_any_work(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        engine(tmp_path, **settings).run([Slow()], "config")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.yaml")), "a config that did not run is not the last that ran"


def test_good_settings_are_not_complained_about() -> None:
    assert not list(check_cluster(RunSettings(workers=2, memory_limit="2GiB")))
    assert not list(check_cluster(RunSettings(cluster="synchronous")))


@contextlib.contextmanager
def web_server() -> Iterator[str]:
    class Silent(http.server.BaseHTTPRequestHandler):
        timeout = 5

        def log_message(self, *_: Any) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_a_port_that_is_no_scheduler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 3)
    with web_server() as address, pytest.raises(UserError, match=f"no Dask scheduler answers at {address}"):
        engine(tmp_path, cluster=address).run([Slow()])


def test_a_worker_that_dies_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WORKER_SETUP", "curate.no_such_module")
    with pytest.raises(UserError, match=r"run\.cluster: the local cluster does not start: .*no_such_module"):
        start_pool(RunSettings(workers=1))


def test_a_scheduler_that_is_lost(tmp_path: Path) -> None:
    file = str(tmp_path / "scheduler.json")
    with (
        dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file) as scheduler,
        dask("worker", "--nthreads", "1", "--scheduler-file", file, "--death-timeout", "20") as work,
    ):
        try:
            address = _address(tmp_path / "scheduler.json")
            threading.Thread(target=_kill_behind_the_first, args=(tmp_path / "w", scheduler)).start()
            with pytest.raises(ClusterLostError, match=f"{address} is gone; what was committed is kept"):
                engine(tmp_path / "w", cluster=address).run([Slow(200, 0.2)])
        finally:
            scheduler.kill()
            work.kill()


def dask(role: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{role}", "--no-dashboard", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _kill_behind_the_first(workspace: Path, scheduler: subprocess.Popen[bytes]) -> None:
    while scheduler.poll() is None and not list(workspace.glob("out/*")):
        time.sleep(0.1)
    scheduler.kill()


def _address(path: Path) -> str:
    while not (path.exists() and path.read_text().strip()):
        time.sleep(0.1)
    return str(json.loads(path.read_text())["address"])
