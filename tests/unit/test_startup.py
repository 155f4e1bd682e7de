"""What a command loads before it works: an experiment that needs no SQL pays for none."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from curate.dataset.records import RecordStore
from curate.startup import starting
from tests.unit.filter.filter_pool import MODEL, SCORER, kept_uids, uid_from, write_pool

HEAVY = ["duckdb", "fsspec", "asyncio", "torch", "pandas", "distributed", "faiss"]
RUN = """
import json, sys
from curate.cli import main
try:
    main(sys.argv[2:])
finally:
    with open(sys.argv[1], "w") as stream:
        json.dump(sorted(sys.modules), stream)
"""


def loaded_by(folder: Path, *arguments: str) -> set[str]:
    """Modules that are there when a command is done."""
    found = folder / "modules.json"
    command = [sys.executable, "-c", RUN, str(found), *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(found.read_text()))


def kept_by(folder: Path, rule: object) -> tuple[list[str], set[str]]:
    """What a rule keeps of four rows, and what was loaded for that."""
    rows = [
        {"uid": uid_from(i << 120), "similarity": i / 10, "text": "ab", "text_length": i} for i in range(1, 5)
    ]
    workspace = write_pool(folder / "work", [rows[:2], rows[2:]])
    config = {
        "workspace": workspace.url,
        "embed": {"models": {MODEL: {"model": "demo"}}},
        "score": {"scorers": {SCORER: {"type": "text"}}},
        "filter": {"experiments": {"e": {"rules": {"r": rule}}}},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    modules = loaded_by(folder, "filter", str(path))
    assert [r.unit for r in RecordStore(workspace).iterate("filter/e")] == ["all"]
    return kept_uids(workspace, "e"), modules


@pytest.mark.parametrize(
    "rule",
    [
        {"top": "similarity", "fraction": 0.5},
        {"score": "text_length", "min": 3},
        "similarity >= 0.28",
        {"score": "similarity", "min_quantile": 0.5},
    ],
)
def test_a_plain_rule_loads_no_database(tmp_path: Path, rule: object) -> None:
    kept, modules = kept_by(tmp_path, rule)
    assert kept == [uid_from(3 << 120), uid_from(4 << 120)]
    assert not modules & set(HEAVY)


@pytest.mark.parametrize("rule", ["similarity + 0.0 >= 0.28", {"top": "text_length * 2", "fraction": 0.5}])
def test_any_other_rule_still_gets_one(tmp_path: Path, rule: object) -> None:
    kept, modules = kept_by(tmp_path, rule)
    assert kept == [uid_from(3 << 120), uid_from(4 << 120)]
    assert "duckdb" in modules
    assert not modules & {"torch", "pandas", "distributed"}


def test_help_of_all_commands_needs_no_settings(tmp_path: Path) -> None:
    modules = loaded_by(tmp_path, "--help")
    assert not {m for m in modules if m.startswith(("curate.config", "curate.dataset.workspace"))}
    assert not modules & {*HEAVY, "numpy", "pyarrow", "yaml"}


def test_garbage_is_collected_again_after_a_start() -> None:
    def interrupted() -> None:
        with starting():
            assert not gc.isenabled()
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(("before", "least", "most"), [("", 10_000, 10**9), ("import torch", 0, 0)])
def test_a_command_ends_without_a_last_collection_unless_it_loaded_torch(
    before: str, least: int, most: int
) -> None:
    # The first one to be registered is called last.
    code = f"import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count())); {before}\n"
    code += "from curate.cli import main; main(['--version'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert least <= int(done.stdout.split()[-1]) <= most
    assert not done.stderr
