from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from torch import nn

from curate.clip.vectors import Stored
from curate.config.loading import check
from curate.config.models import EmbedSettings
from curate.config.scorers.head import HeadKind, HeadScorer
from curate.config.scorers.prompt_thresholds import PromptThresholdsScorer
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.embed.stage import EmbedStage
from curate.engine.plan import make_plan
from curate.errors import ConfigError, UserError
from curate.score.contract import Shard
from curate.score.heads import Space, head_from_sequential, save_head
from curate.score.heads.published import PUBLISHED
from curate.score.kinds.head import ClassifierHead, check_fits
from curate.score.kinds.prompt_thresholds import PromptThresholds, Thresholds, judge_prompts, parse_thresholds
from curate.score.stage import ScoreStage
from tests.unit.embed.clip_shards import dataset, run_stage, samples, settings_of
from tests.unit.score.golden_heads.writers import h14_module, torch_bytes, unit

DOCS = Path(__file__).resolve().parents[3] / "docs" / "heads.md"
H14 = {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k", "dim": 1024}


def shard_of(vectors: Stored, facts: dict[str, Any], encode: Any = None) -> Shard:
    table = pa.table({"uid": [f"{i:032x}" for i in range(len(vectors))]})
    return Shard("00000", table, {("m", "image"): vectors}, {"m": facts}, encode)


@pytest.fixture(scope="module")
def h14(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("heads") / "h14_nsfw.pth"
    state = {f"layers.{k}": v for k, v in h14_module().state_dict().items()}
    path.write_bytes(torch_bytes(state))
    return str(path)


def test_scores_are_columns_with_nulls(h14: str) -> None:
    scorer = ClassifierHead("nsfw", HeadScorer(type="head", file=h14, model="m"))
    scorer = pickle.loads(pickle.dumps(scorer))
    vectors = unit(30, 1024, 0)
    vectors[7] = np.nan
    found = scorer.score(shard_of(vectors, H14))
    assert list(found) == ["score"]
    assert found["score"].type == pa.float32()
    assert [i for i, v in enumerate(found["score"].to_pylist()) if v is None] == [7]
    with torch.no_grad():
        expected = h14_module()(nn.functional.normalize(torch.from_numpy(vectors[:7].astype(np.float32))))
    np.testing.assert_allclose(
        found["score"].to_numpy(False)[:7], expected[:, 0].numpy(), rtol=1e-5, atol=1e-6
    )
    assert scorer.score(shard_of(vectors[:0], H14))["score"].to_pylist() == []


@pytest.mark.parametrize(
    ("facts", "any_model", "says"),
    [
        (H14, False, None),
        ({**H14, "pretrained": "other"}, True, None),
        (
            {**H14, "pretrained": "other"},
            False,
            "ViT-H-14 (other); embed with ViT-H-14 (laion2b_s32b_b79k), or set",
        ),
        ({**H14, "model": "local-dir:/m", "pretrained": None}, False, "`any_model: true`"),
        ({**H14, "dim": 768}, False, "1024 dimensions, those of ViT-H-14"),
        ({**H14, "dim": 768}, True, "1024 dimensions"),
    ],
)
def test_embeddings_of_another_model_are_refused(
    h14: str, facts: dict, any_model: bool, says: str | None
) -> None:
    settings = HeadScorer(type="head", file=h14, model="m", any_model=any_model)
    scorer = ClassifierHead("nsfw", settings)
    shard = shard_of(unit(2, facts["dim"], 0), facts)
    if says is None:
        assert scorer.score(shard)["score"].null_count == 0
        return
    with pytest.raises(UserError) as error:
        scorer.score(shard)
    message = str(error.value)
    assert message.startswith(f"score.scorers.nsfw.model: {h14} ")
    assert says in message
    assert "\n" not in message


def test_a_head_of_unknown_origin_has_to_be_trusted(tmp_path: Path) -> None:
    head = head_from_sequential(nn.Sequential(nn.Linear(8, 1)), None)
    settings = HeadScorer(type="head", file="h.safetensors", model="m")
    facts = {"model": "demo", "dim": 8}
    with pytest.raises(UserError, match=r"does not say which CLIP.*any_model: true"):
        check_fits(head, facts, settings, "score.scorers.x")
    check_fits(head, facts, settings.model_copy(update={"any_model": True}), "score.scorers.x")


def test_kinds_of_the_settings_are_those_that_are_known() -> None:
    kinds = set(HeadKind.__args__)
    assert kinds == {*PUBLISHED, "prompts_b32", "prompts_b16", "prompts_l14"}
    with pytest.raises(ConfigError, match="kind"):
        check(
            {
                "embed": {"models": {"m": {"model": "demo"}}},
                "score": {"scorers": {"x": {"type": "head", "file": "f", "model": "m", "kind": "nope"}}},
            }
        )


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Workspace:
    workspace = Workspace(str(tmp_path_factory.mktemp("w")))
    dataset(workspace, samples(25), shards=3)
    run_stage(workspace, EmbedStage("m", settings_of(tiny)))
    return workspace


def test_a_run_scores_stored_vectors_and_a_new_file_redoes_them(
    space: Workspace, tiny: Path, tmp_path: Path
) -> None:
    model = settings_of(tiny)
    embed = EmbedSettings(models={"m": model})
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(1))
    head = head_from_sequential(module, Space(model.model, None), ("good", "bad"))
    path = save_head(head, tmp_path / "mine.safetensors")[0]
    settings = HeadScorer(type="head", file=str(path), model="m")
    run_stage(space, ScoreStage("h", settings, embed))
    rows = [r for i in range(3) for r in space.read_table(Family.scores("h").path(f"{i:05d}")).to_pylist()]
    stored = np.concatenate(
        [np.load(space.location(layout.embedding("m", "image", f"{i:05d}"))) for i in range(3)]
    )
    assert [r["h_bad"] for r in rows] == head(stored)[:, 1].tolist()
    assert set(rows[0]) == {"uid", "h_good", "h_bad"}

    def jobs(changed: HeadScorer) -> int:
        return len(make_plan(ScoreStage("h", changed, embed), space, RecordStore(space)).jobs)

    copy = save_head(head, tmp_path / "copy.safetensors")[0]
    assert jobs(settings.model_copy(update={"any_model": True, "file": str(copy)})) == 0
    save_head(head_from_sequential(module, Space(model.model, None), ("good", "worse")), path)
    assert jobs(settings) == 3


# --- prompts with thresholds ----------------------------------------------------------------------

LIST = """
nsfw:
  concepts: {bad: 0.2, worse: 0.1, 18+: 0.3}
  action: obfuscate
special:
  concepts: {child: 0.25}
"""


def plain(
    vector: np.ndarray, encoded: np.ndarray, listed: Thresholds, settings: PromptThresholdsScorer
) -> tuple:
    """One image at a time, by the rule of the safety checker."""
    vector = vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64))
    cosines = [float(vector @ e.astype(np.float64)) + settings.adjustment for e in encoded]
    special = any(c > t for c, t in zip(cosines, listed.special.values(), strict=False))
    more = settings.special_adjustment if special else 0.0
    margins = [
        c + more - t for c, t in zip(cosines[len(listed.special) :], listed.concepts.values(), strict=True)
    ]
    return max(margins), margins.index(max(margins)), sum(m > 0 for m in margins), special


@pytest.mark.parametrize("adjustment", [0.0, 0.05])
def test_prompt_thresholds_are_the_rule(adjustment: float) -> None:
    listed = parse_thresholds(LIST.encode(), "x")
    settings = PromptThresholdsScorer(
        type="prompt_thresholds", file="f", model="m", adjustment=adjustment, special_adjustment=0.1
    )
    vectors, encoded = unit(1500, 16, 0), unit(4, 16, 1).astype(np.float32)
    encoded /= np.linalg.norm(encoded, axis=1, keepdims=True)
    vectors[4] = np.nan
    found = judge_prompts(vectors, encoded, listed, settings)
    assert np.isnan(found.score[4])
    for i in (*range(4), *range(5, 1500)):
        score, top, hits, special = plain(vectors[i], encoded, listed, settings)
        assert found.score[i] == pytest.approx(score, abs=1e-6)
        assert (found.top[i], found.hits[i], found.special[i]) == (top, hits, special)
    assert 0 < found.special.mean() < 1
    parts = [judge_prompts(v, encoded, listed, settings) for v in (vectors[:1100], vectors[1100:])]
    assert np.array_equal(np.concatenate([p.score for p in parts]), found.score, equal_nan=True)


def test_prompt_thresholds_as_columns(tmp_path: Path) -> None:
    path = tmp_path / "list.yml"
    path.write_text(LIST)
    settings = PromptThresholdsScorer(type="prompt_thresholds", file=str(path), model="m")
    scorer = PromptThresholds("p", settings)
    asked: list[tuple[str, ...]] = []

    def encode(alias: str, texts: tuple[str, ...]) -> tuple[np.ndarray, float]:
        asked.append(texts)
        return np.eye(4, dtype=np.float32), 100.0

    vectors = np.array([[0, 1, 0, 0], [0.8, 0, 0.6, 0], [np.nan] * 4, [0, 0, 0, 0]], np.float16)
    found = scorer.score(shard_of(vectors, {"dim": 4}, encode))
    assert asked == [("child", "bad", "worse", "18+")]
    assert found["top"].to_pylist() == ["bad", "worse", None, None]
    assert found["hits"].to_pylist() == [1, 1, None, None]
    assert found["special"].to_pylist() == [False, True, None, None]
    assert found["score"].to_pylist() == [pytest.approx(0.8), pytest.approx(0.51, abs=1e-3), None, None]
    other = tmp_path / "other.yml"
    other.write_text(LIST)
    assert PromptThresholds("p", settings.model_copy(update={"file": str(other)})).facts == scorer.facts
    other.write_text(LIST.replace("0.3", "0.31"))
    assert PromptThresholds("p", settings.model_copy(update={"file": str(other)})).facts != scorer.facts


def test_laions_own_list(fixtures_dir: Path) -> None:
    path = fixtures_dir / "heads" / "nsfw_safety_settings.yml"
    listed = parse_thresholds(path.read_bytes(), str(path))
    assert (len(listed.concepts), len(listed.special)) == (17, 6)
    assert 0.18 < min(listed.concepts.values()) < max(listed.concepts.values()) < 0.23


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "expected groups"),
        ("", "expected groups"),
        ("nsfw: {bad: 0.2}", "group 'nsfw' needs"),
        ("nsfw: {concepts: [bad]}", "group 'nsfw' needs"),
        ("nsfw: {concepts: {bad: 0.2}, extra: 1}", "group 'nsfw' needs"),
        ("nsfw: {concepts: {bad: high}}", "nsfw.concepts.bad: 'high' is not a threshold"),
        ("nsfw: {concepts: {bad: .nan}}", "is not a threshold"),
        ("nsfw: {concepts: {bad: true}}", "is not a threshold"),
        ("a: {concepts: {bad: 0.2}}\nb: {concepts: {bad: 0.3}}", "'bad' is there twice"),
        ("nsfw: {concepts: {no: 0.2}}", "'False' in quotes"),
        ("special: {concepts: {child: 0.2}}", "only special"),
        ("nsfw: {concepts: {}}", "only special"),
    ],
)
def test_lists_that_cannot_be_used(text: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        parse_thresholds(text.encode(), "score.scorers.p.file: list.yml")
    assert str(error.value).startswith("score.scorers.p.file: list.yml: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


# --- the page -------------------------------------------------------------------------------------


def test_the_pages_examples_are_configs() -> None:
    blocks = [part.partition("```")[0] for part in DOCS.read_text("utf-8").split("```yaml\n")[1:]]
    configs = [yaml.safe_load(block) for block in blocks]
    kinds = set()
    for config in configs:
        if "score" in config:
            kinds |= {scorer.type for scorer in check(config).score.scorers.values()}
        else:
            parse_thresholds(yaml.safe_dump(config).encode(), "the page")
    assert kinds == {"head", "prompt_thresholds", "zero_shot"}


def test_the_page_names_every_kind() -> None:
    page = DOCS.read_text("utf-8")
    assert [kind for kind in HeadKind.__args__ if f"`{kind}`" not in page] == []
