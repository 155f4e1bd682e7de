"""Small workspaces for tests: what the stages before a filter would have left."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.dataset import layout
from curate.dataset.family import CANDIDATES
from curate.dataset.records import Record, RecordStore, inputs_digest
from curate.dataset.uid import shard_of
from curate.dataset.workspace import FileRef, Workspace


def some_rows(count: int = 300, seed: int = 0) -> pa.Table:
    """Samples with columns of several types, with NULLs and NaNs, equal values, and groups.

    Returns:
        ``uid``, ``url``, ``text``, ``lang``, ``score`` (float64), ``small`` (float32), ``number`` (int64),
        ``cluster`` (int32), ``hash`` (uint64).
    """
    draw = random.Random(seed)
    numbers = [None, float("nan"), *(i / 32 for i in range(40))]
    texts = ["a cat", "dog", "a red bird", "cat , dog", "", None]
    return pa.table(
        {
            "uid": [f"{draw.getrandbits(128):032x}" for _ in range(count)],
            "url": [f"http://host{draw.randrange(9)}.example/{i}.jpg" for i in range(count)],
            "text": [draw.choice(texts) for _ in range(count)],
            "lang": [draw.choice(["en", "en", "en", "de", "fr", None]) for _ in range(count)],
            "score": pa.array([draw.choice(numbers) for _ in range(count)], pa.float64()),
            "small": pa.array([draw.choice(numbers) for _ in range(count)], pa.float32()),
            "number": pa.array([draw.choice([None, *range(30)]) for _ in range(count)], pa.int64()),
            "cluster": pa.array([draw.choice([None, *range(6)]) for _ in range(count)], pa.int32()),
            "hash": pa.array([draw.choice([None, *range(64)]) for _ in range(count)], pa.uint64()),
        }
    ).sort_by("uid")


def write_pool(folder: Path, rows: pa.Table, shards: int = 3) -> Workspace:
    """A workspace of samples without images, as ``download: null`` leaves it.

    Args:
        rows: ``uid`` and any other columns, in any order.
    """
    workspace = Workspace(str(folder))
    facts = {"shards": shards, "shard_size": 1, "candidates": rows.num_rows, "images": False}
    workspace.write_json(layout.DATASET, facts)
    rows = rows.sort_by("uid")
    numbers = np.array([shard_of(uid, shards) for uid in rows["uid"].to_pylist()], np.int64)
    for number in range(shards):
        shard = layout.shard_name(number, shards)
        part = rows.filter(pa.array(numbers == number))
        commit(workspace, CANDIDATES.stage, shard, [workspace.write_table(CANDIDATES.path(shard), part)])
    return workspace


def commit(
    workspace: Workspace,
    stage: str,
    unit: str,
    outputs: Iterable[FileRef],
    inputs: tuple[FileRef, ...] = (),
) -> None:
    """Record a unit as done."""
    RecordStore(workspace).write(
        Record(
            stage=stage,
            unit=unit,
            key="",
            settings={},
            code_version=1,
            inputs_digest=inputs_digest(inputs),
            inputs=[],
            outputs=list(outputs),
            rows_in=0,
            rows_out=0,
            drops={},
        )
    )
