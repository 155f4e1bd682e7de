"""Fake pools: the files and records that the stages before the filter would have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.config.filters import Experiment
from curate.dataset import layout
from curate.dataset.family import IMAGES, Family
from curate.dataset.records import Record, RecordStore, inputs_digest
from curate.dataset.selections import Selection
from curate.dataset.uid import shard_of
from curate.dataset.workspace import FileRef, Workspace
from curate.engine.stage import Outcome
from curate.filter.stage import FilterStage

MODEL, SCORER = "b32", "text"
IMAGE_TYPES: dict[str, pa.DataType] = {
    "caption": pa.string(),
    "url": pa.string(),
    "sha256": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
}
SCORE_TYPES: dict[str, pa.DataType] = {
    "text_length": pa.int64(),
    "text_score": pa.float64(),
    "text_lang": pa.string(),
}

Row = Mapping[str, Any]


def uid_from(number: int) -> str:
    """A uid by its 128-bit number."""
    return f"{number:032x}"


def cut_in_shards(rows: Sequence[Row], shards: int) -> list[list[Row]]:
    """Rows by the shard that their uid falls in, in uid order."""
    parts: list[list[Row]] = [[] for _ in range(shards)]
    for row in sorted(rows, key=lambda r: r["uid"]):
        parts[shard_of(row["uid"], shards)].append(row)
    return parts


def write_pool(
    folder: Path, parts: Sequence[Sequence[Row]], score_types: Mapping[str, pa.DataType] = SCORE_TYPES
) -> Workspace:
    """A workspace whose shards hold the given rows; absent keys are NULL.

    Keys are the public column names. Among the samples lie candidates without an image.
    """
    workspace = Workspace(str(folder))
    workspace.write_json(layout.DATASET, {"shards": len(parts), "shard_size": 10, "candidates": 0})
    for i, rows in enumerate(parts):
        name = layout.shard_name(i, len(parts))
        write_images(workspace, name, rows)
        write_similarities(workspace, name, rows)
        write_scores(workspace, name, rows, SCORER, score_types)
    return workspace


def write_images(workspace: Workspace, shard: str, rows: Sequence[Row]) -> None:
    everything = [{**r, "status": "success", "caption": r.get("text")} for r in rows]
    taken = {r["uid"] for r in rows}
    for row in rows[::3]:
        number = int(row["uid"], 16)
        if number and uid_from(number - 1) not in taken:
            everything.append({"uid": uid_from(number - 1), "status": "failed_to_download", "width": 9_999})
    everything.sort(key=lambda r: r["uid"])
    types = {"uid": pa.string(), "status": pa.string(), **IMAGE_TYPES}
    ref = workspace.write_table(IMAGES.path(shard), as_table(everything, types))
    commit(workspace, "download", shard, [ref, FileRef(layout.image_tar(shard), 1, "tar")])


def write_similarities(workspace: Workspace, shard: str, rows: Sequence[Row], model: str = MODEL) -> None:
    types = {"uid": pa.string(), "similarity": pa.float32()}
    ref = workspace.write_table(Family.embeddings(model).path(shard), as_table(rows, types))
    commit(workspace, f"embed/{model}", shard, [ref])


def write_scores(
    workspace: Workspace, shard: str, rows: Sequence[Row], scorer: str, types: Mapping[str, pa.DataType]
) -> None:
    table = as_table(rows, {"uid": pa.string(), **types})
    commit(
        workspace, f"score/{scorer}", shard, [workspace.write_table(Family.scores(scorer).path(shard), table)]
    )


def as_table(rows: Sequence[Row], types: Mapping[str, pa.DataType]) -> pa.Table:
    return pa.table({n: pa.array([r.get(n) for r in rows], t) for n, t in types.items()})


def commit(
    workspace: Workspace,
    stage: str,
    unit: str,
    outputs: list[FileRef],
    inputs: tuple[FileRef, ...] = (),
    settings: Mapping[str, Any] | None = None,
) -> None:
    record = Record(
        stage=stage,
        unit=unit,
        key="k",
        settings=dict(settings or {}),
        code_version=1,
        inputs_digest=inputs_digest(inputs),
        inputs=[],
        outputs=outputs,
        rows_in=0,
        rows_out=0,
        drops={},
    )
    RecordStore(workspace).write(record)


def stage_of(name: str, experiment: Mapping[str, Any], scorers: Sequence[str] = (SCORER,)) -> FilterStage:
    return FilterStage(name, Experiment.model_validate(experiment), (MODEL,), tuple(scorers))


def run_experiment(
    workspace: Workspace, name: str, experiment: Mapping[str, Any], scorers: Sequence[str] = (SCORER,)
) -> Outcome:
    """Run as the engine does, with its check of the sums and its record."""
    stage = stage_of(name, experiment, scorers)
    (unit,) = stage.units(workspace)
    outcome = stage.run(workspace, unit)
    assert outcome.rows_in == outcome.rows_out + sum(outcome.drops.values())
    commit(workspace, stage.name, unit.name, list(outcome.outputs), unit.inputs, stage.settings)
    return outcome


def kept_uids(workspace: Workspace, name: str) -> list[str]:
    """Uids of a selection in shard order, checked against each shard's counts."""
    counts = workspace.read_table(layout.selection_file(name, "counts.parquet")).to_pylist()
    found = []
    selection = Selection(workspace, name)
    for row in counts:
        table = selection.read(row["shard"])
        assert table.num_rows == row["kept"]
        assert table["repeats"].to_pylist() == [1] * table.num_rows
        found += table["uid"].to_pylist()
    return found
