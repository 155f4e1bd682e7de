"""What docs/detectors.md says is what the program takes and makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from curate.config.loading import check
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.selections import Selection
from curate.dataset.workspace import Workspace
from curate.filter.stage import FilterStage
from curate.score.kinds.image_stats import MEASURES
from curate.score.kinds.text_classifier import DETOXIFY
from curate.score.prompts import shipped
from curate.score.stage import score_stages
from tests.unit.embed.clip_shards import run_stage
from tests.unit.score.odd_images import laion_state, lost, shard_of_odd_images

PAGE = (Path(__file__).parents[3] / "docs" / "detectors.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
KINDS = {"words", "text_classifier", "image_stats", "perceptual", "image_classifier", "categories"}


def test_every_kind_has_an_example() -> None:
    scorers = [s for text in EXAMPLES for s in yaml.safe_load(text)["score"]["scorers"].values()]
    assert {s["type"] for s in scorers} >= KINDS


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_load(text: str) -> None:
    given: dict[str, Any] = yaml.safe_load(text)
    config = check(given)
    assert list(config.score.scorers) == list(given["score"]["scorers"])


def test_columns_labels_and_categories_are_named() -> None:
    columns = [*MEASURES, "grey", "count", "distinct", "first", "phash", "dhash", "pdq", "pdq_quality"]
    columns += ["pwatermark", "best", "probability", "margin", "p_<category>"]
    assert [c for c in columns if f"`_{c}`" not in PAGE] == []
    assert [label for label in DETOXIFY if f"`{label}`" not in PAGE] == []
    categories = yaml.safe_load(shipped("category_prompts")["data_types"])["categories"]
    assert ", ".join(categories) in PAGE


def test_the_filter_example_runs(tmp_path: Path) -> None:
    text = next(example for example in EXAMPLES if "experiments:" in example)
    state = laion_state()
    torch.save(state, tmp_path / "watermark.pt")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "en").write_text("broken\n")
    text = text.replace("./lists", str(tmp_path / "lists"))
    text = text.replace("./watermark_model_v1.pt", str(tmp_path / "watermark.pt"))
    config = check(yaml.safe_load(text.replace("wm_pwatermark < 0.8", "wm_pwatermark <= 1")))
    workspace = Workspace(str(tmp_path / "work"))
    names = shard_of_odd_images(workspace)
    workspace.write_json(layout.DATASET, {"shards": 1, "shard_size": 100, "candidates": len(names)})
    for stage in score_stages(config.score, config.embed):
        run_stage(workspace, stage)
    experiment = config.filter.experiments["clean"]
    run_stage(workspace, FilterStage("clean", experiment, (), tuple(config.score.scorers)))
    kept = Selection(workspace, "clean").read("00000")["uid"].to_pylist()
    uids = workspace.read_table(Family.scores("hash").path("00000"))["uid"].to_pylist()
    found = {names[uids.index(uid)] for uid in kept}
    assert "picture" in found
    assert not [name for name in found if lost(name)]
    assert "flat" not in found
    assert "one pixel" not in found
