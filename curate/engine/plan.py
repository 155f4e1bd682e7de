"""What a stage has to do: its units against the records of what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curate.config.base import fingerprint
from curate.dataset.records import Record, RecordStore, inputs_digest
from curate.dataset.workspace import Workspace
from curate.engine.stage import Stage, Unit

MISSING = "an output is missing or has another size"
"""The one reason to do a finished unit again that is not another config or input."""


@dataclass(frozen=True)
class Job:
    """A unit to do, with the key its record will carry."""

    unit: Unit
    key: str
    partners: tuple[tuple[Stage, Job], ...] = ()
    """Jobs of partner stages that are done in the same pass."""


@dataclass(frozen=True)
class Plan:
    """The difference between what a stage should have done and what it has."""

    jobs: list[Job]
    """Units to do. Memory: one small object per unit that is not done."""
    done: int
    """Units whose record and outputs fit."""
    rows_done: int
    stale: dict[str, str]
    """Finished units that are done again → why, in words."""
    retried: int
    """Units that were quarantined before."""
    obsolete: list[Record]
    """Records of units that no longer exist."""


def unit_key(stage: Stage, unit: Unit) -> str:
    """Fingerprint of everything that decides a unit's outputs."""
    return fingerprint(
        {
            "stage": stage.name,
            "code": stage.code_version,
            "settings": stage.settings,
            "unit": unit.name,
            "payload": unit.payload,
            "inputs": inputs_digest(unit.inputs),
        }
    )


def make_plan(stage: Stage, workspace: Workspace, store: RecordStore) -> Plan:
    """Compare the units of a stage with its records."""
    units = {unit.name: unit for unit in stage.units(workspace)}
    sizes = _Sizes(workspace)
    finished: set[str] = set()
    stale: dict[str, str] = {}
    retried = rows = 0
    obsolete = []
    for record in store.iterate(stage.name):
        unit = units.get(record.unit)
        if unit is None:
            obsolete.append(record)
        elif record.failed:
            retried += 1
        elif why := _difference(stage, unit, record, sizes):
            stale[record.unit] = why
        else:
            finished.add(record.unit)
            rows += record.rows_in
    jobs = [Job(u, unit_key(stage, u)) for name, u in sorted(units.items()) if name not in finished]
    return Plan(jobs, len(finished), rows, stale, retried, obsolete)


class _Sizes:
    """File sizes by folder, listed once."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folders: dict[str, dict[str, int]] = {}

    def of(self, path: str) -> int | None:
        folder = path.rpartition("/")[0]
        if folder not in self.folders:
            self.folders[folder] = self.workspace.sizes(folder)
        return self.folders[folder].get(path)


def _difference(stage: Stage, unit: Unit, record: Record, sizes: _Sizes) -> str:
    """Why a finished unit has to be done again; empty when it need not."""
    if record.key == unit_key(stage, unit):
        gone = [ref.path for ref in record.outputs if sizes.of(ref.path) != ref.size]
        return MISSING if gone else ""
    if record.code_version != stage.code_version:
        return f"code version {record.code_version} → {stage.code_version}"
    changed = describe_changes(record.settings, stage.settings)
    if changed:
        return "settings: " + ", ".join(changed)
    return "inputs changed"


def describe_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key old → new`` for every leaf that differs."""
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += describe_changes(a, b, f"{prefix}{key}.")
        elif fingerprint(a) != fingerprint(b):
            found.append(f"{prefix}{key} {_short(a)} → {_short(b)}")
    return found


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
