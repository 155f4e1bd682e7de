from __future__ import annotations

import io
import json
import socket
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from curate.demo.config import DELIVERED
from curate.demo.model import CLIP_FOLDER, CLIP_NAME, UNSAFE_PROMPTS, WATERMARK_PROMPTS
from curate.demo.world import World, WorldConfig

MEGABYTE = 1_000_000


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    above = (positive[:, None] > negative[None, :]).mean()
    return float(above + (positive[:, None] == negative[None, :]).mean() / 2)


@pytest.fixture(scope="module")
def clip() -> tuple[Any, Any, Any]:
    """The model, loaded where no connection can be made."""

    def refuse(*_: Any) -> None:
        raise AssertionError("loading the demo's CLIP opened a connection")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        model, preprocess = open_clip.create_model_from_pretrained(CLIP_NAME)
        tokenizer = open_clip.get_tokenizer(CLIP_NAME)
    return model.eval(), preprocess, tokenizer


@pytest.fixture(scope="module")
def embedded(clip: tuple[Any, Any, Any]) -> tuple[list[dict[str, Any]], torch.Tensor, torch.Tensor]:
    """Delivered pairs of a world that training never saw, with unit image and text vectors."""
    model, preprocess, tokenizer = clip
    world = World(WorldConfig(seed=990_017, images=700))
    rows = [r for r in world.truth().to_pylist() if r["http_kind"] in DELIVERED]
    images, texts = [], []
    with torch.inference_mode():
        for start in range(0, len(rows), 128):
            part = rows[start : start + 128]
            pixels = [preprocess(Image.open(io.BytesIO(world.image_bytes(r["url"])))) for r in part]
            images.append(model.encode_image(torch.stack(pixels), normalize=True))
            texts.append(model.encode_text(tokenizer([r["text"] for r in part]), normalize=True))
    return rows, torch.cat(images), torch.cat(texts)


def test_the_folder_is_small_and_complete() -> None:
    assert sum(f.stat().st_size for f in CLIP_FOLDER.iterdir()) < 10 * MEGABYTE
    config = json.loads((CLIP_FOLDER / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["vocab_size"] == 49408
    card = (CLIP_FOLDER / "README.md").read_text()
    for word in ("Apache-2.0", "seed", "auc_match_mismatch", "UNSAFE STAND-IN"):
        assert word in card


def test_matched_pairs_stand_above_mismatched_ones(
    embedded: tuple[list[dict[str, Any]], torch.Tensor, torch.Tensor],
) -> None:
    rows, images, texts = embedded
    cosine = (images * texts).sum(1).numpy()
    kinds = np.array([r["alt_kind"] for r in rows])
    junk = np.isin(kinds, ["mismatch", "boilerplate", "too_short"])
    assert auc(cosine[kinds == "match"], cosine[kinds == "mismatch"]) >= 0.98
    assert auc(cosine[kinds == "match"], cosine[junk]) >= 0.98


@pytest.mark.parametrize(
    ("column", "prompts"), [("watermark", WATERMARK_PROMPTS), ("unsafe", UNSAFE_PROMPTS)]
)
def test_prompts_find_marks_and_emblems(
    column: str,
    prompts: tuple[tuple[str, ...], tuple[str, ...]],
    clip: tuple[Any, Any, Any],
    embedded: tuple[list[dict[str, Any]], torch.Tensor, torch.Tensor],
) -> None:
    model, _, tokenizer = clip
    rows, images, _ = embedded
    with torch.inference_mode():
        yes, no = (model.encode_text(tokenizer(list(side)), normalize=True).mean(0) for side in prompts)
    score = (images @ (yes - no)).numpy()
    truth = np.array([r[column] for r in rows])
    assert truth.sum() >= 20
    assert auc(score[truth], score[~truth]) >= 0.95
