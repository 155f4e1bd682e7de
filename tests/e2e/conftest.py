from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from curate.demo.command import demo_config
from curate.demo.config import HttpShares, WorldConfig
from curate.demo.server import serve
from curate.demo.wat import write_wats
from curate.demo.world import World

DATA_SUFFIXES = (".parquet", ".tar", ".npy", ".index")


@dataclass
class Web:
    """A small demo world that is being served, with its WAT files on disk."""

    world: World
    wats: Path
    proxy: str

    def config(self, folder: Path, name: str = "config.yaml", **sections: object) -> Path:
        """A demo config for this web in ``folder``, its workspace in ``folder/work``."""
        facts = demo_config(str(folder / "work"), self.wats, self.proxy, shard_size=40)
        facts["run"] = {"workers": 2}
        facts["download"] |= {"timeout": 60, "deadline": 120, "threads": 4}
        for key, value in sections.items():
            facts[key] = {**facts.get(key, {}), **value} if isinstance(value, dict) else value
        path = folder / name
        path.write_text(yaml.safe_dump(facts, sort_keys=False))
        return path


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    # No answer depends on how busy the machine is: nothing is slow, and patience is long.
    http = HttpShares(slow=0, drip=0)
    world = World(WorldConfig(seed=11, images=240, http=http))
    write_wats(world, folder / "wats", files=3)
    with serve(world) as server:
        yield Web(world, folder / "wats", server.proxy)


@pytest.fixture(scope="session")
def curate_command() -> list[str]:
    return [sys.executable, "-m", "curate.cli"]


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def curate(curate_command: list[str]) -> Run:
    """Run a verb in a process of its own, as a user does."""

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(
            [*curate_command, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def fingerprints(workspace: Path) -> dict[str, str]:
    """Digest of every data file of a workspace: parquet, tar, npy, index; not records and logs."""
    found = {}
    for path in sorted(workspace.rglob("*")):
        relative = path.relative_to(workspace)
        if path.suffix in DATA_SUFFIXES and relative.parts[0] != ".curate":
            found[str(relative)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="session")
def finished(web: Web, curate: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that one undisturbed run made. Tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    curate("run", web.config(folder))
    return folder / "work"


@pytest.fixture
def copy_of(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished workspace (hard links: commits replace files, never write into them)."""
    target = tmp_path / "work"
    for path in finished.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(finished)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(path, copy)
    return target
