from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.clip.model import load
from curate.config.loading import check
from curate.config.models import EmbedSettings
from curate.config.scorers.image import ImageScorer
from curate.config.scorers.text import TextScorer
from curate.config.scorers.zero_shot import ZeroShotScorer
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.embed.stage import EmbedStage
from curate.engine.plan import make_plan
from curate.errors import ConfigError, UserError
from curate.samples.geometry import image_facts
from curate.score.kinds.zero_shot import TAGS, tag_images
from curate.score.prompts import shipped
from curate.score.stage import ScoreStage
from curate.text.facts import text_facts
from tests.unit.embed.clip_shards import dataset, run_stage, samples, settings_of


def test_text_counts_characters_words_and_language() -> None:
    found = text_facts(
        pa.array(["ein kleiner Hund läuft im Schnee", "  two\twords\n", "", None, "日本語の写真です"])
    )
    assert found["length"].to_pylist() == [32, 12, 0, None, 8]
    assert found["words"].to_pylist() == [6, 2, 0, None, 1]
    assert found["lang"].to_pylist()[0] == "de"
    assert found["lang"].to_pylist()[2:4] == [None, None]
    assert found["lang"].to_pylist()[4] == "ja"
    assert found["lang_score"].to_pylist()[3] is None


def test_image_geometry() -> None:
    found = image_facts(pa.array([300, 100, None, 0], pa.int32()), pa.array([100, 400, 5, 9], pa.int32()))
    assert {k: v.to_pylist() for k, v in found.items()} == {
        "min_side": [100, 100, None, None],
        "max_side": [300, 400, None, None],
        "aspect": [3.0, 4.0, None, None],
        "pixels": [30_000, 40_000, None, None],
    }


@pytest.mark.parametrize(
    "sides",
    [
        pa.array([300.0, float("nan"), float("inf"), 1e10, -5.0, 0.5, 20.7, None]),
        pa.array(["300", "nan", "", "99999999999", "-5", "0", "20", None]),
        pa.chunked_array([pa.array([300, 2**31, 2**62, 0, -1, -(2**63), 20, None], pa.int64())]),
        pa.array([300, 2**31, 2**64 - 1, 0, 0, 0, 20, None], pa.uint64()),
    ],
)
def test_an_odd_size_costs_its_row_only(sides: pa.Array) -> None:
    found = image_facts(sides, pa.array([100] * 8, pa.int16()))
    assert found["min_side"].to_pylist() == [100, None, None, None, None, None, 20, None]
    assert found["aspect"].to_pylist() == [3.0, None, None, None, None, None, 5.0, None]
    assert found["pixels"].to_pylist() == [30_000, None, None, None, None, None, 2_000, None]


def plain_tags(vectors: np.ndarray, positive: np.ndarray, negative: np.ndarray, scale: float) -> list[tuple]:
    """One row at a time, by the definition."""
    rows = []
    for vector in vectors.astype(np.float64):
        if not np.isfinite(vector).all():
            rows.append((None, -1, -1))
            continue
        logits = [scale * float(np.dot(vector, p)) for p in (*positive, *negative)]
        top = max(logits)
        weights = [np.exp(x - top) for x in logits]
        order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
        share = sum(weights[: len(positive)]) / sum(weights)
        rows.append((share, order[0], sum(i < len(positive) for i in order[:2])))
    return rows


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 8), st.integers(1, 4), st.integers(1, 4), st.floats(0.5, 100))
def test_zero_shot_is_its_definition(seed: int, n: int, p: int, m: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    unit = lambda k: (lambda v: v / np.linalg.norm(v, axis=1, keepdims=True))(rng.normal(size=(k, 6)))  # noqa: E731
    vectors = unit(n).astype(np.float16) if n else np.empty((0, 6), np.float16)
    if n > 2:
        vectors[1] = np.nan
    positive, negative = unit(p), unit(m)
    found = tag_images(vectors, positive, negative, scale)
    for i, (share, top, tag) in enumerate(plain_tags(vectors, positive, negative, scale)):
        if share is None:
            assert np.isnan(found.score[i])
        else:
            assert found.score[i] == pytest.approx(share, abs=1e-6)
        assert (found.top[i], found.tag[i]) == (top, tag)
    for cut in range(n):
        parts = [tag_images(v, positive, negative, scale) for v in (vectors[:cut], vectors[cut:])]
        joined = np.concatenate([x.score for x in parts])
        assert np.array_equal(joined, found.score, equal_nan=True), "rows do not see each other"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Workspace:
    workspace = Workspace(str(tmp_path_factory.mktemp("w")))
    dataset(workspace, samples(25), shards=3)
    run_stage(workspace, EmbedStage("m", settings_of(tiny)))
    return workspace


def scores(space: Workspace, name: str) -> list[dict[str, object]]:
    return [r for i in range(3) for r in space.read_table(Family.scores(name).path(f"{i:05d}")).to_pylist()]


def test_text_and_image_scores_are_aligned_with_the_samples(space: Workspace) -> None:
    embed = EmbedSettings()
    run_stage(space, ScoreStage("t", TextScorer(type="text"), embed))
    run_stage(space, ScoreStage("i", ImageScorer(type="image"), embed))
    text, image = scores(space, "t"), scores(space, "i")
    assert [r["uid"] for r in text] == [r["uid"] for r in image] == [uid for uid, _, _ in samples(25)]
    assert [r["t_length"] for r in text] == [len(caption) for _, caption, _ in samples(25)]
    assert set(image[0]) == {"uid", "i_min_side", "i_max_side", "i_aspect", "i_pixels"}


def test_zero_shot_scores_from_stored_vectors_alone(space: Workspace, tiny: Path) -> None:
    model = settings_of(tiny)
    prompts = {"positive": ("a bad thing", "a worse thing"), "negative": ("a thing", "a house", "a tree")}
    scorer = ZeroShotScorer(type="zero_shot", model="m", batch_rows=4, **prompts)
    run_stage(space, ScoreStage("z", scorer, EmbedSettings(models={"m": model})))
    clip = load(model)
    positive, negative = (clip.encode_texts(list(prompts[k])) for k in ("positive", "negative"))
    stored = np.concatenate(
        [np.load(Path(space.location(layout.embedding("m", "image", f"{i:05d}")))) for i in range(3)]
    )
    expected = plain_tags(stored, positive, negative, clip.facts["logit_scale"])
    names = [*prompts["positive"], *prompts["negative"]]
    for row, (share, top, tag) in zip(scores(space, "z"), expected, strict=True):
        assert row["z_score"] == pytest.approx(share, abs=1e-5)
        assert row["z_top"] == names[top]
        assert row["z_tag"] == TAGS[tag]


def test_changing_a_prompt_redoes_that_scorer_only(space: Workspace, tiny: Path) -> None:
    embed = EmbedSettings(models={"m": settings_of(tiny)})
    one = ZeroShotScorer(type="zero_shot", model="m", positive=("a",), negative=("b",))
    other = one.model_copy(update={"positive": ("c",)})
    run_stage(space, ScoreStage("p", one, embed))
    assert make_plan(ScoreStage("p", one, embed), space, RecordStore(space)).jobs == []
    assert len(make_plan(ScoreStage("p", other, embed), space, RecordStore(space)).jobs) == 3


def test_shipped_lists_are_found_and_others_named(space: Workspace, tiny: Path) -> None:
    assert {"nsfw_laion400m", "watermark", "demo_watermark", "demo_unsafe"} <= set(shipped())
    embed = EmbedSettings(models={"m": settings_of(tiny)})
    with pytest.raises(UserError, match="watermark"):
        ScoreStage("w", ZeroShotScorer(type="zero_shot", model="m", prompts="watermrk"), embed)


def test_nsfw_prompts_are_two_lists_of_the_published_lengths() -> None:
    import yaml

    lists = yaml.safe_load(shipped()["nsfw_laion400m"])
    assert (len(lists["negative"]), len(lists["positive"])) == (18, 17)


def test_prompts_and_lists_are_exclusive() -> None:
    scorer = {"type": "zero_shot", "model": "m", "prompts": "watermark", "positive": ["a"]}
    with pytest.raises(ConfigError, match="not both"):
        check({"embed": {"models": {"m": {"model": "demo"}}}, "score": {"scorers": {"w": scorer}}})
