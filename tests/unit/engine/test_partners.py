"""Stages that share a pass over the same files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from curate.config.models import RunSettings
from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace
from curate.engine.engine import Engine
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import DataError, IncompleteError


class Reader(Stage):
    """Reads a file to write another; counts the passes over the file."""

    def __init__(self, name: str, word: str = "w", breaks: str = "") -> None:
        self.name = name
        self.settings = {"word": word}
        self.breaks = breaks

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        for name in "ab":
            yield Unit(name, (FileRef(f"in/{name}", 1, "d"),))

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        return self.run_together(workspace, [(self, unit)])[0]

    def run_together(self, workspace: Workspace, parts: Sequence[tuple[Stage, Unit]]) -> list[Outcome]:
        path = f"passes/{parts[0][1].name}"
        before = workspace.read_bytes(path).decode() if workspace.exists(path) else ""
        workspace.write_bytes(path, (before + "+".join(s.name for s, _ in parts) + "\n").encode())
        for stage, unit in parts:
            if isinstance(stage, Reader) and unit.name == stage.breaks:
                raise DataError(f"{stage.name} cannot do {unit.name}")
        return [
            Outcome((workspace.write_bytes(f"{s.name}/{u.name}", f"{s.settings['word']}".encode()),), 2, 2)
            for s, u in parts
        ]


def run(path: Path, *stages: Reader) -> None:
    for i, stage in enumerate(stages):
        stage.partners = tuple(stages[i + 1 :])
    settings = RunSettings(cluster="synchronous", retries=0, error_budget=1.0)
    Engine(Workspace(str(path)), settings, Console(quiet=True)).run(stages)


def passes(path: Path, unit: str) -> list[str]:
    return (path / "passes" / unit).read_text().split()


def done(path: Path, stage: str) -> list[str]:
    return [r.unit for r in RecordStore(Workspace(str(path))).iterate(stage) if not r.failed]


def test_all_are_done_in_one_pass_and_each_has_its_records(tmp_path: Path) -> None:
    run(tmp_path, Reader("x"), Reader("y"), Reader("z"))
    assert passes(tmp_path, "a") == passes(tmp_path, "b") == ["x+y+z"]
    for name in "xyz":
        assert done(tmp_path, name) == ["a", "b"]
        assert (tmp_path / name / "a").read_text() == "w"
    run(tmp_path, Reader("x"), Reader("y"), Reader("z"))
    assert passes(tmp_path, "a") == ["x+y+z"]


def test_one_that_is_added_or_changed_runs_without_the_others(tmp_path: Path) -> None:
    run(tmp_path, Reader("x"), Reader("y"))
    run(tmp_path, Reader("x"), Reader("y", word="other"), Reader("z"))
    assert passes(tmp_path, "a") == ["x+y", "y+z"]
    assert (tmp_path / "y" / "a").read_text() == "other"


def test_only_the_units_that_both_need_are_shared(tmp_path: Path) -> None:
    run(tmp_path, Reader("x"), Reader("y"))
    RecordStore(Workspace(str(tmp_path))).drop("x", {"a"})
    RecordStore(Workspace(str(tmp_path))).drop("y", {"a", "b"})
    run(tmp_path, Reader("x"), Reader("y"))
    assert passes(tmp_path, "a") == ["x+y", "x+y"]
    assert passes(tmp_path, "b") == ["x+y", "y"]


def test_the_fault_of_one_is_not_the_others(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="y: 1 unit"):
        run(tmp_path, Reader("x"), Reader("y", breaks="a"))
    assert done(tmp_path, "x") == ["a", "b"]
    assert done(tmp_path, "y") == ["b"]
    assert passes(tmp_path, "a") == ["x+y", "x", "y"]
    run(tmp_path, Reader("x"), Reader("y"))
    assert done(tmp_path, "y") == ["a", "b"]
