"""Pools and embeddings as others publish them, made up, with what is true about every row."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.config.models import ModelSettings
from curate.dataset import layout
from curate.dataset.family import CANDIDATES, Family
from curate.dataset.uid import shard_of, uid_of
from curate.dataset.workspace import Workspace
from curate.embed.stored.stages import JoinStage, SortStage
from curate.engine.stage import Outcome, Stage, Unit
from tests.unit.embed.clip_shards import run_stage

DIMS = {"b32": 16, "l14": 24}
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Row:
    """One pair of a pool; vectors by ``b32_img``, … as they are stored (float16)."""

    uid: str
    url: str
    text: str
    width: int
    height: int
    vectors: Mapping[str, Floats]

    def cosine(self, arrays: str) -> float:
        """Of the stored vectors, in double precision."""
        image, text = (self.vectors[f"{arrays}_{kind}"].astype(np.float64) for kind in ("img", "txt"))
        return float(image @ text / np.linalg.norm(image) / np.linalg.norm(text))


def rows_of(count: int, seed: int = 0, dims: Mapping[str, int] = DIMS) -> list[Row]:
    """Pairs in an order that has nothing to do with their uids."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        text, url = f"picture {i} of a thing", f"https://h{i % 13}.example/{i}.jpg"
        vectors = {}
        for name, dim in dims.items():
            image = rng.normal(size=dim)
            words = image * rng.uniform(-0.2, 0.9) + rng.normal(size=dim)
            for kind, vector in (("img", image), ("txt", words)):
                vectors[f"{name}_{kind}"] = (vector / np.linalg.norm(vector)).astype(np.float16)
        width, height = rng.integers(80, 900, 2).tolist()
        rows.append(Row(uid_of(text, url), url, text, width, height, vectors))
    return rows


def cut(rows: Sequence[Row], files: int) -> list[Sequence[Row]]:
    """Consecutive rows by file, of unequal lengths."""
    edges = [0, *(len(rows) * (i + 1) ** 2 // files**2 for i in range(files))]
    return [rows[a:b] for a, b in itertools.pairwise(edges)]


def datacomp_table(rows: Sequence[Row], arrays: Iterable[str] = DIMS) -> pa.Table:
    """DataComp's columns."""
    scores = {
        f"clip_{name}_similarity_score": pa.array([r.cosine(name) for r in rows], pa.float32())
        for name in arrays
    }
    return pa.table(
        {
            "uid": [r.uid for r in rows],
            "url": [r.url for r in rows],
            "text": [r.text for r in rows],
            "original_width": pa.array([r.width for r in rows], pa.int64()),
            "original_height": pa.array([r.height for r in rows], pa.int64()),
            **scores,
            "face_bboxes": pa.array([[[0.1, 0.2, 0.3, 0.4]]] * len(rows), pa.list_(pa.list_(pa.float64()))),
            "sha256": ["0" * 64] * len(rows),
        }
    )


def write_datacomp(
    folder: Path, rows: Sequence[Row], files: int = 4, save: Callable[..., None] = np.savez
) -> list[Path]:
    """``<32 hex>.parquet`` and ``.npz`` side by side; returns the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for i, part in enumerate(cut(rows, files)):
        path = folder / f"{uid_of('file', str(i))}.parquet"
        pq.write_table(datacomp_table(part, _arrays(part)), path, row_group_size=1_000)
        save(path.with_suffix(".npz"), **_stacked(part))
        tables.append(path)
    return tables


def write_clip_retrieval(
    folder: Path,
    rows: Sequence[Row],
    files: int = 3,
    columns: Callable[[Sequence[Row]], Mapping[str, Sequence[Any]]] | None = None,
    arrays: str = "b32",
) -> None:
    """clip-retrieval's three folders, numbers without leading zeros."""
    for kind in ("img_emb", "text_emb", "metadata"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(cut(rows, files)):
        stacked = _stacked(part)
        np.save(folder / f"img_emb/img_emb_{i}.npy", stacked[f"{arrays}_img"])
        np.save(folder / f"text_emb/text_emb_{i}.npy", stacked[f"{arrays}_txt"])
        table = columns(part) if columns else webdataset_columns(part)
        pq.write_table(pa.table(dict(table)), folder / f"metadata/metadata_{i}.parquet")


def webdataset_columns(rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
    """Of img2dataset's shards: positional keys, caption and URL."""
    return {
        "image_path": [f"{i:09d}" for i in range(len(rows))],
        "caption": [r.text for r in rows],
        "url": [r.url for r in rows],
    }


def _arrays(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name.partition("_")[0] for name in rows[0].vectors))


def _stacked(rows: Sequence[Row]) -> dict[str, Floats]:
    return {name: np.stack([r.vectors[name] for r in rows]) for name in rows[0].vectors}


class FakeIngest(Stage):
    """Commits candidates, as a pool without images has them."""

    name = "ingest"

    def __init__(self, rows: Sequence[Row], shards: int) -> None:
        self.rows, self.shards = list(rows), shards
        self.settings = {"rows": [r.uid for r in rows]}

    def units(self, workspace: Workspace) -> list[Unit]:
        return [Unit(layout.shard_name(i, self.shards)) for i in range(self.shards)]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        mine = sorted((r for r in self.rows if shard_of(r.uid, self.shards) == int(unit.name)), key=_by_uid)
        table = pa.table(
            {
                "uid": pa.array([r.uid for r in mine], pa.string()),
                "url": pa.array([r.url for r in mine], pa.string()),
                "text": pa.array([r.text for r in mine], pa.string()),
                "original_width": pa.array([r.width for r in mine], pa.int64()),
            }
        )
        ref = workspace.write_table(CANDIDATES.path(unit.name), table)
        return Outcome((ref,), table.num_rows, table.num_rows)


def _by_uid(row: Row) -> str:
    return row.uid


def write_pool(workspace: Workspace, rows: Sequence[Row], shards: int = 3) -> None:
    """A pool of metadata only."""
    facts = {"shards": shards, "shard_size": 10, "spills": "", "candidates": len(rows), "images": False}
    workspace.write_json(layout.DATASET, facts)
    run_stage(workspace, FakeIngest(rows, shards))


def settings(source: Path | str | list[str], **more: Any) -> ModelSettings:
    where = str(source) if isinstance(source, Path) else source
    facts = {"model": "some-clip", "source": where, "format": "clip_retrieval", **more}
    if facts["format"] == "datacomp":
        facts.setdefault("arrays", "b32")
    return ModelSettings.model_validate(facts)


def take(workspace: Workspace, model: ModelSettings, alias: str = "b32") -> None:
    """Both stages, as the engine runs them."""
    run_stage(workspace, SortStage(alias, model))
    run_stage(workspace, JoinStage(alias, model))


@dataclass(frozen=True)
class Taken:
    """All shards of an alias, one after the other."""

    table: pa.Table
    image: Floats
    text: Floats
    facts: dict[str, Any]

    def column(self, name: str) -> dict[str, Any]:
        return dict(zip(self.table["uid"].to_pylist(), self.table[name].to_pylist(), strict=True))


def taken(workspace: Workspace, shards: int = 3, alias: str = "b32") -> Taken:
    names = [layout.shard_name(i, shards) for i in range(shards)]
    tables = [workspace.read_table(Family.embeddings(alias).path(name)) for name in names]
    image, text = (
        np.concatenate([np.load(workspace.location(layout.embedding(alias, kind, name))) for name in names])
        for kind in ("image", "text")
    )
    facts = json.loads(workspace.read_bytes(layout.embedding_model(alias)))
    return Taken(pa.concat_tables(tables), image, text, facts)
