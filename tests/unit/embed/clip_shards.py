"""A tiny CLIP with random weights and image shards, without the stages that would make them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file

from curate.config.models import ModelSettings, RunSettings
from curate.dataset import layout
from curate.dataset.family import IMAGES
from curate.dataset.records import RecordStore
from curate.dataset.uid import shard_of, uid_of
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.engine.engine import run_unit
from curate.engine.plan import make_plan
from curate.engine.stage import Outcome, Stage, Unit

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def save_clip(folder: Path, seed: int = 0, family: type = CLIP, **changes: Any) -> Path:
    """Write a local-dir model with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    config = {**MODEL_CFG, **changes}
    model = family(**config)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text)
    return folder


def settings_of(folder: Path, **more: Any) -> ModelSettings:
    return ModelSettings(model=f"local-dir:{folder}", device="cpu", **{"batch_size": 8, **more})


def jpeg(seed: int, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 5, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def tar_of(images: Sequence[tuple[str, bytes]], suffix: str = "jpg") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for uid, data in images:
            for name, content in ((f"{uid}.{suffix}", data), (f"{uid}.json", b"{}"), (f"{uid}.txt", b"x")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


class FakeDownload(Stage):
    """Commits shards that are given: uid → (caption, image bytes or None, columns)."""

    name = "download"
    settings: Mapping[str, Any] = {}

    def __init__(self, shards: Mapping[str, tuple[pa.Table, bytes]]) -> None:
        self.shards = shards

    def units(self, workspace: Workspace) -> list[Unit]:
        return [Unit(name, (), {"rows": table.num_rows}) for name, (table, _) in self.shards.items()]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        table, tar = self.shards[unit.name]
        path = layout.image_tar(unit.name)
        with workspace.writing(path) as temporary:
            temporary.write_bytes(tar)
            ref = ref_of(temporary, path)
        refs: tuple[FileRef, ...] = (ref, workspace.write_table(IMAGES.path(unit.name), table))
        return Outcome(refs, table.num_rows, table.num_rows)


def run_stage(workspace: Workspace, stage: Stage) -> None:
    """What the engine does with a stage, in this process and without its console."""
    store = RecordStore(workspace)
    plan = make_plan(stage, workspace, store)
    store.drop(stage.name, set(plan.stale))
    for job in plan.jobs:
        run_unit(stage, workspace, job)
    stage.finish(workspace)


def samples(count: int, caption: str = "a picture of thing {}") -> list[tuple[str, str, str]]:
    """(uid, caption, url) in uid order."""
    rows = [(caption.format(i), f"https://h{i % 7}.example/{i}.jpg") for i in range(count)]
    return sorted((uid_of(text, url), text, url) for text, url in rows)


def image_table(rows: Sequence[tuple[str, str | None, str]], failed: Sequence[int] = ()) -> pa.Table:
    n = len(rows)
    status = ["failed_to_download" if i in failed else "success" for i in range(n)]
    return pa.table(
        {
            "uid": pa.array([r[0] for r in rows], pa.string()),
            "url": pa.array([r[2] for r in rows], pa.string()),
            "caption": pa.array([r[1] for r in rows], pa.string()),
            "status": pa.array(status, pa.string()),
            "original_width": pa.array([None if i in failed else 300 + i for i in range(n)], pa.int32()),
            "original_height": pa.array([None if i in failed else 200 for i in range(n)], pa.int32()),
        }
    )


def dataset(workspace: Workspace, rows: Sequence[tuple[str, str, str]], shards: int) -> None:
    """Commit the images of a whole dataset, every sample with a picture of its own."""
    parts: dict[str, list[tuple[str, str, str]]] = {layout.shard_name(i, shards): [] for i in range(shards)}
    for row in rows:
        parts[layout.shard_name(shard_of(row[0], shards), shards)].append(row)
    made = {
        name: (image_table(part), tar_of([(uid, jpeg(int(uid[:8], 16))) for uid, _, _ in part]))
        for name, part in parts.items()
    }
    run_stage(workspace, FakeDownload(made))
    workspace.write_json(layout.DATASET, {"shards": shards, "shard_size": 10, "candidates": len(rows)})


SYNCHRONOUS = RunSettings(cluster="synchronous", retries=0)
OPEN_CLIP = open_clip.__version__
