"""A shard of unusual, broken and missing images, and drawn pictures whose pixels are a formula."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from curate.config.models import EmbedSettings
from curate.dataset.family import Family
from curate.dataset.uid import uid_of
from curate.dataset.workspace import Workspace
from curate.score.stage import ScoreStage
from tests.unit.embed.clip_shards import FakeDownload, image_table, run_stage, tar_of


def drawn(width: int, height: int, a: int, b: int, c: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    channels = [
        (a * x + b * y + (x * y) // c) % 256,
        (b * x + (x - y) ** 2 // c) % 256,
        (a * y + x // c) % 256,
    ]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def odd_images() -> dict[str, bytes | None]:
    """What it is → bytes; None is not in the tar, and what begins with "broken" does not decode."""
    picture = drawn(90, 60, 3, 5, 7)
    frames = [drawn(40, 30, i, 2, 3).quantize(16) for i in (1, 4, 9)]
    deep = Image.fromarray((np.arange(48 * 40, dtype=np.uint16) * 34).reshape(40, 48))
    palette = picture.quantize(8)
    whole = saved(picture, "JPEG", quality=90)
    return {
        "picture": whole,
        "one pixel": saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"),
        "palette with transparency": saved(palette, "PNG", transparency=bytes([0, 128, 255])),
        "cmyk": saved(picture.convert("CMYK"), "JPEG"),
        "16-bit grey": saved(deep, "PNG"),
        "animated": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "grey with alpha": saved(picture.convert("LA"), "PNG"),
        "line": saved(drawn(1200, 1, 1, 1, 1), "PNG"),
        "column": saved(drawn(2, 700, 1, 3, 1), "PNG"),
        "flat": saved(Image.new("RGB", (50, 70), (200, 200, 201)), "PNG"),
        "bitmap": saved(picture.convert("1"), "PNG"),
        "broken, cut short": whole[: len(whole) // 3],
        "broken, no image": b"<html>not found</html>",
        "broken, empty": b"",
        "missing": None,
    }


def lost(name: str) -> bool:
    return name.startswith(("broken", "missing"))


def shard_of_odd_images(workspace: Workspace) -> list[str]:
    """Commit them as the only shard; their names in the order of the samples."""
    images = odd_images()
    rows = sorted((uid_of(name, "u"), name, f"https://h.example/{i}") for i, name in enumerate(images))
    stored = [(uid, data) for uid, name, _ in rows if (data := images[name]) is not None]
    run_stage(workspace, FakeDownload({"00000": (image_table(rows), tar_of(stored))}))
    return [name for _, name, _ in rows]


def scored(workspace: Workspace, name: str, settings: Any) -> dict[str, list[Any]]:
    """Columns without the scorer's name, after a run and a second one that has the same bytes."""
    run_stage(workspace, ScoreStage(name, settings, EmbedSettings()))
    first = workspace.read_bytes(Family.scores(name).path("00000"))
    run_stage(workspace, ScoreStage(f"{name}2", settings, EmbedSettings()))
    table = workspace.read_table(Family.scores(name).path("00000"))
    again = workspace.read_table(Family.scores(f"{name}2").path("00000"))
    assert first
    assert again.rename_columns(table.column_names).equals(table)
    columns: Mapping[str, list[Any]] = table.to_pydict()
    return {column.removeprefix(f"{name}_"): values for column, values in columns.items()}


def laion_state() -> dict[str, torch.Tensor]:
    """Weights of the published detector's shape, written down from its description."""
    torch.manual_seed(1)
    model = timm.create_model("efficientnet_b3", pretrained=False, num_classes=2)
    linear = torch.nn.Linear
    model.classifier = torch.nn.Sequential(
        linear(1536, 625),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.3),
        linear(625, 256),
        torch.nn.ReLU(),
        linear(256, 2),
    )
    state: dict[str, torch.Tensor] = model.state_dict()
    return state
