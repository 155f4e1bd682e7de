"""What the commit records say, summed per stage: rows in, rows out, every reason, worker seconds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curate.dataset import layout
from curate.dataset.family import CANDIDATES, base_family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace

ERRORS_NAMED = 5


@dataclass(frozen=True)
class Step:
    """The account of one stage.

    Attributes:
        stage: its name, e.g. ``embed/b32``.
        units: committed units.
        failed: quarantined units; their rows are in none of the counts.
        rows_in: rows that the committed units read.
        rows_out: rows that came out; ``rows_in == rows_out + sum(drops.values())``.
        drops: reason → rows, most frequent first.
        bytes_out: size of all outputs.
        seconds: worker seconds, summed over units.
        versions: of this package, that made the units; sorted.
        digest: over all outputs: another one means that a file has changed.
        errors: unit and error of the first few quarantined units.
    """

    stage: str
    units: int
    failed: int
    rows_in: int
    rows_out: int
    drops: dict[str, int]
    bytes_out: int
    seconds: float
    versions: tuple[str, ...]
    digest: str
    errors: tuple[str, ...]

    @property
    def verb(self) -> str:
        """``embed`` of ``embed/b32``."""
        return self.stage.partition("/")[0]

    def counts(self) -> dict[str, Any]:
        """What is the same whenever and wherever the stage ran, as plain JSON values."""
        return {
            "stage": self.stage,
            "units": self.units,
            "failed_units": self.failed,
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "drops": self.drops,
        }


def step_of(workspace: Workspace, stage: str) -> Step | None:
    """Sum the records of a stage; None when it has none. Memory: one counter of reasons."""
    units = failed = rows_in = rows_out = size = 0
    seconds = 0.0
    drops: Counter[str] = Counter()
    versions: set[str] = set()
    errors: list[str] = []
    hasher = hashlib.blake2b(digest_size=16)
    for record in RecordStore(workspace).iterate(stage):
        if record.failed:
            failed += 1
            if failed <= ERRORS_NAMED:
                errors.append(f"{record.unit}: {record.error}")
            continue
        units += 1
        rows_in += record.rows_in
        rows_out += record.rows_out
        seconds += record.seconds
        size += sum(ref.size for ref in record.outputs)
        drops.update(record.drops)
        versions.add(record.version)
        hasher.update(f"{record.unit}\0{record.rows_in}\0{record.rows_out}\0{record.drops}\n".encode())
        for ref in record.outputs:
            hasher.update(f"{ref.path}\0{ref.size}\0{ref.digest}\n".encode())
    if not units and not failed:
        return None
    ordered = dict(sorted(drops.items(), key=lambda item: (-item[1], item[0])))
    return Step(
        stage,
        units,
        failed,
        rows_in,
        rows_out,
        ordered,
        size,
        seconds,
        tuple(sorted(versions)),
        hasher.hexdigest(),
        tuple(errors),
    )


def stage_names(experiment: str, models: Sequence[str], scorers: Sequence[str]) -> list[str]:
    """The stages that an experiment stands on, in the order in which rows pass them."""
    return [
        "parse",
        "ingest",
        "download",
        *(f"embed/{name}" for name in models),
        *(f"score/{name}" for name in scorers),
        f"filter/{experiment}",
    ]


def account(
    workspace: Workspace, experiment: str, models: Sequence[str], scorers: Sequence[str]
) -> list[Step]:
    """The steps of an experiment that have records, in order."""
    names = stage_names(experiment, models, scorers)
    if base_family(workspace) == CANDIDATES:
        names.remove("download")  # of another config, if there are records of it
    steps = (step_of(workspace, name) for name in names)
    return [step for step in steps if step is not None]


def funnel_of(workspace: Workspace, experiment: str) -> dict[str, Any]:
    """The filter's ``funnel.json``; empty when there is none."""
    path = layout.selection_file(experiment, "funnel.json")
    value = workspace.read_json(path) if workspace.exists(path) else {}
    return value if isinstance(value, dict) else {}


def model_cards(workspace: Workspace, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Alias → ``model.json`` of every model that has one."""
    found = {}
    for name in models:
        path = layout.embedding_model(name)
        if workspace.exists(path):
            value = workspace.read_json(path)
            found[name] = value if isinstance(value, dict) else {"model": value}
    return found
