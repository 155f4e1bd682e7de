"""SIGKILL at random moments, rerun, and the bytes are those of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Run, Web, fingerprints


def start(command: list[str], config: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        return subprocess.Popen([*command, "run", str(config)], stdout=stream, stderr=stream)


def wait_for(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process ended by itself within the time."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [c for c in children if "spawn_main" in " ".join(c.cmdline())]


def committed(work: Path) -> dict[str, float]:
    """Path → modification time of single records and of their outputs' folder, as far as they are there."""
    return {str(p): p.stat().st_mtime_ns for p in work.glob("images/*.tar")} if work.exists() else {}


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_driver(
    web: Web, finished: Path, curate: Run, curate_command: list[str], tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    config, work = web.config(tmp_path), tmp_path / "work"
    kept: dict[str, float] = {}
    for _ in range(3):
        process = start(curate_command, config, tmp_path / "log")
        ended = wait_for(process, rng.uniform(4.0, 16.0))
        family = [] if ended else psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        psutil.wait_procs(family, timeout=30)  # workers notice that their driver is gone and stop
        now = committed(work)
        for path, written in kept.items():
            assert now[path] == written, f"{path} was committed and done again"
        records = {p.stem for p in work.glob(".curate/records/download/*.json")}
        kept = {p: t for p, t in now.items() if Path(p).stem in records}
        if ended:
            break
    curate("run", config)
    assert fingerprints(work) == fingerprints(finished)
    assert not list((work / ".curate" / "tmp").glob("*")), "half-written files are left"


def test_killed_workers(
    web: Web, finished: Path, curate: Run, curate_command: list[str], tmp_path: Path
) -> None:
    rng = random.Random(3)
    config, work = web.config(tmp_path), tmp_path / "work"
    process = start(curate_command, config, tmp_path / "log")
    killed = 0
    deadline = time.monotonic() + 120
    while process.poll() is None and killed < 3 and time.monotonic() < deadline:
        time.sleep(rng.uniform(2.0, 5.0))
        workers = workers_of(process) if process.poll() is None else []
        if workers:
            os.kill(rng.choice(workers).pid, signal.SIGKILL)
            killed += 1
    assert killed, "no worker was ever there to be killed"
    assert wait_for(process, 240), "the run hangs after its workers were killed"
    curate("run", config)
    assert fingerprints(work) == fingerprints(finished)


def test_interrupted(
    web: Web, finished: Path, curate: Run, curate_command: list[str], tmp_path: Path
) -> None:
    """Ctrl-C reaches every process of the terminal: one line, exit code 130, and the next run goes on."""
    config, work = web.config(tmp_path), tmp_path / "work"
    with (tmp_path / "log").open("ab") as stream:
        process = subprocess.Popen(
            [*curate_command, "run", str(config)],
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            # Where the tests themselves run in the background, a shell has them ignore the signal.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    deadline = time.monotonic() + 120
    while not list(work.glob("images/*.tar")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    assert wait_for(process, 120), "the run hangs after Ctrl-C"
    assert process.returncode == 130
    said = (tmp_path / "log").read_text()
    assert "interrupted; what was committed is kept" in said
    assert "Traceback" not in said
    curate("run", config)
    assert fingerprints(work) == fingerprints(finished)
