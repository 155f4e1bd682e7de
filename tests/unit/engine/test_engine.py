from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from curate.config.models import RunSettings
from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace
from curate.engine.engine import Engine
from curate.engine.plan import describe_changes, make_plan
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import BudgetExceededError, DataError, IncompleteError, UserError


class Letters(Stage):
    """Writes each unit's name and setting into a file; misbehaves where told to."""

    def __init__(
        self, units: str, word: str = "w", bad: dict[str, str] | None = None, guarded: bool = False
    ) -> None:
        self.name = "letters"
        self.settings = {"word": word}
        self.names = units
        self.bad = bad or {}
        self.guarded = guarded  # type: ignore[misc]

    def units(self, workspace: Workspace) -> Iterator[Unit]:
        for name in self.names:
            yield Unit(name, (FileRef(f"in/{name}", 1, "d"),), {"n": 1})

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        how = self.bad.get(unit.name)
        tries = f"tries/{unit.name}"
        count = int(workspace.read_bytes(tries)) if workspace.exists(tries) else 0
        workspace.write_bytes(tries, str(count + 1).encode())
        if how == "always":
            raise DataError(f"{unit.name} is broken")
        if how == "once" and count == 0:
            raise OSError("a hiccup")
        if how == "user":
            raise UserError("mend me")
        if how == "kill once" and count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        ref = workspace.write_bytes(f"out/{unit.name}", f"{unit.name}{self.settings['word']}".encode())
        return Outcome((ref,), 3, 1, {"lost": 1} if how == "miscount" else {"timeout": 2})


def engine(path: Path, **options: Any) -> Engine:
    redo = options.pop("redo", frozenset())
    options.setdefault("cluster", "synchronous")
    return Engine(Workspace(str(path)), RunSettings(**options), Console(quiet=True), redo=redo)


def tries(path: Path, unit: str) -> int:
    file = path / "tries" / unit
    return int(file.read_text()) if file.exists() else 0


def test_units_are_done_once_and_skipped_afterwards(tmp_path: Path) -> None:
    engine(tmp_path).run([Letters("abc")])
    engine(tmp_path).run([Letters("abc")])
    assert [tries(tmp_path, u) for u in "abc"] == [1, 1, 1]
    record = RecordStore(Workspace(str(tmp_path))).read("letters", "a")
    assert record is not None
    assert (record.rows_in, record.rows_out, record.drops) == (3, 1, {"timeout": 2})


def test_new_units_are_done_and_gone_ones_removed(tmp_path: Path) -> None:
    engine(tmp_path).run([Letters("ab")])
    engine(tmp_path).run([Letters("bc")])
    assert [tries(tmp_path, u) for u in "abc"] == [1, 1, 1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b", "c"]


def test_changed_settings_redo_and_say_what_changed(tmp_path: Path) -> None:
    engine(tmp_path).run([Letters("ab")])
    plan = make_plan(Letters("ab", "v"), Workspace(str(tmp_path)), RecordStore(Workspace(str(tmp_path))))
    assert plan.stale == {"a": "settings: word w → v", "b": "settings: word w → v"}
    engine(tmp_path).run([Letters("ab", "v")])
    assert (tmp_path / "out" / "a").read_text() == "av"


def test_a_missing_output_is_made_again(tmp_path: Path) -> None:
    engine(tmp_path).run([Letters("ab")])
    (tmp_path / "out" / "a").unlink()
    engine(tmp_path).run([Letters("ab")])
    assert [tries(tmp_path, u) for u in "ab"] == [2, 1]


def test_a_guarded_stage_is_not_redone_unasked(tmp_path: Path) -> None:
    engine(tmp_path).run([Letters("ab", guarded=True)])
    with pytest.raises(UserError, match=r"made with another config.*word w → v.*--redo letters") as caught:
        engine(tmp_path).run([Letters("ab", "v", guarded=True)])
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out" / "a").read_text() == "aw"
    engine(tmp_path, redo=frozenset({"letters"})).run([Letters("ab", "v", guarded=True)])
    assert (tmp_path / "out" / "a").read_text() == "av"


def test_a_guarded_stage_makes_a_missing_output_again(tmp_path: Path) -> None:
    engine(tmp_path).run([Letters("ab", guarded=True)])
    (tmp_path / "out" / "a").unlink()
    engine(tmp_path).run([Letters("ab", guarded=True)])
    assert [tries(tmp_path, u) for u in "ab"] == [2, 1]


def test_a_hiccup_is_retried(tmp_path: Path) -> None:
    engine(tmp_path).run([Letters("ab", bad={"a": "once"})])
    assert [tries(tmp_path, u) for u in "ab"] == [2, 1]


def test_a_broken_unit_is_quarantined_within_the_budget_and_tried_by_the_next_run(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="letters: 1 unit"):
        engine(tmp_path, error_budget=0.4, retries=1).run([Letters("abc", bad={"b": "always"})])
    assert [tries(tmp_path, u) for u in "abc"] == [1, 2, 1]
    failed = RecordStore(Workspace(str(tmp_path))).read("letters", "b")
    assert failed is not None
    assert failed.failed
    assert failed.error == "b is broken"
    engine(tmp_path).run([Letters("abc")])
    assert [tries(tmp_path, u) for u in "abc"] == [1, 3, 1]


def test_the_error_budget_stops_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceededError, match="more than the error budget of 0"):
        engine(tmp_path, retries=0).run([Letters("abc", bad={"b": "always"})])
    assert tries(tmp_path, "a") == 1
    engine(tmp_path).run([Letters("abc")])
    assert tries(tmp_path, "a") == 1


def test_a_users_mistake_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mend me"):
        engine(tmp_path, error_budget=1.0).run([Letters("abc", bad={"a": "user"})])
    assert tries(tmp_path, "a") == 1


def test_rows_that_do_not_add_up_are_not_committed(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceededError, match="1 rows are unaccounted for"):
        engine(tmp_path, retries=0).run([Letters("a", bad={"a": "miscount"})])


def test_two_runs_on_one_workspace(tmp_path: Path) -> None:
    class Nested(Letters):
        def run(self, workspace: Workspace, unit: Unit) -> Outcome:
            engine(tmp_path).run([Letters("a")])
            return super().run(workspace, unit)

    with pytest.raises(UserError, match="another run is working on this workspace"):
        engine(tmp_path, retries=0).run([Nested("a")])


def test_a_cluster_survives_a_killed_worker(tmp_path: Path) -> None:
    settings = {"cluster": "local", "workers": 2}
    engine(tmp_path, **settings).run([Letters("abcdef", bad={"c": "kill once"})])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == list("abcdef")
    assert tries(tmp_path, "c") == 2


def test_an_unknown_cluster_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.cluster: 'lokal' is none of"):
        engine(tmp_path, cluster="lokal").run([Letters("a")])


def test_preview_changes_nothing(tmp_path: Path) -> None:
    engine(tmp_path).preview([Letters("ab")])
    assert not (tmp_path / "out").exists()


def test_describe_changes_names_leaves() -> None:
    old, new = {"a": {"b": 1, "c": [1]}, "d": None}, {"a": {"b": 2, "c": [1]}, "e": "x"}
    assert describe_changes(old, new) == ["a.b 1 → 2", "e unset → x"]


class Checked(Letters):
    """A stage of a verb of several, that may refuse to run."""

    def __init__(self, name: str, wrong: bool = False) -> None:
        super().__init__("a", name)
        self.name, self.wrong = name, wrong

    def check(self, workspace: Workspace) -> None:
        if self.wrong:
            raise UserError(f"{self.name} is wrong")


@pytest.mark.parametrize("preview", [True, False])
def test_all_stages_of_a_verb_are_checked_before_the_first_works(tmp_path: Path, preview: bool) -> None:
    engine(tmp_path).run([Checked("before/x")])
    stages = [
        Checked("before/y"),
        Checked("verb/a"),
        Checked("verb/b", wrong=True),
        Checked("after/c", wrong=True),
    ]
    work = engine(tmp_path)
    with pytest.raises(UserError, match="verb/b is wrong"):
        work.preview(stages[1:]) if preview else work.run(stages)
    done = RecordStore(Workspace(str(tmp_path))).stages()
    assert sorted(done) == (["before/x"] if preview else ["before/x", "before/y"])


def test_the_last_line_says_what_is_left_and_is_one_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    work = engine(tmp_path)
    work.console = Console(file=stream, width=30)
    work.run([Letters("ab")])
    (line,) = stream.getvalue().splitlines()
    assert "2 units, 6 rows → 2 (33.3%) in" in line


def test_what_changed_is_one_line(tmp_path: Path) -> None:
    engine(tmp_path).run([Letters("a", word="[x]" * 15)])
    stream = io.StringIO()
    work = engine(tmp_path)
    work.console = Console(file=stream, width=30)
    work.run([Letters("a", word="y" * 300)])
    first, _ = stream.getvalue().splitlines()
    assert "again: settings: word [x][x]" in first
    assert len(first) < 250


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / ".curate"
    folder.mkdir()
    (folder / "runs").write_text("a file where the logs should go")
    engine(tmp_path).run([Letters("ab")])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "b"]
