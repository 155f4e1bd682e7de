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
from curate.config.scorers.categories import CategoriesScorer
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.embed.stage import EmbedStage
from curate.engine.plan import make_plan
from curate.errors import ConfigError, UserError
from curate.score.kinds.categories import categorize, category_centres, category_prompts
from curate.score.prompts import shipped
from curate.score.stage import ScoreStage
from tests.unit.embed.clip_shards import dataset, run_stage, samples, save_clip, settings_of


def unit(rng: np.random.Generator, n: int, dim: int = 6) -> np.ndarray:
    vectors = rng.normal(size=(n, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain(vector: np.ndarray, groups: list[np.ndarray], scale: float) -> tuple[int, list[float]]:
    """One image, by the definition."""
    logits = []
    for group in groups:
        mean = sum(group.astype(np.float64)) / len(group)
        logits.append(scale * float(np.dot(vector.astype(np.float64), mean) / np.linalg.norm(mean)))
    weights = [np.exp(x - max(logits)) for x in logits]
    return logits.index(max(logits)), [w / sum(weights) for w in weights]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 8),
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.floats(0.5, 100),
)
def test_categories_are_their_definition(seed: int, n: int, sizes: list[int], scale: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng, n).astype(np.float16)
    if n > 2:
        vectors[1] = np.nan
    prompts = unit(rng, sum(sizes))
    groups = np.split(prompts, np.cumsum(sizes)[:-1])
    found = categorize(vectors, category_centres(prompts, sizes), scale)
    for i, vector in enumerate(vectors):
        if not np.isfinite(vector).all():
            assert found.best[i] == -1
            assert np.isnan([found.probability[i], found.margin[i], *found.shares[i]]).all()
            continue
        best, shares = plain(vector, groups, scale)
        first, second = sorted(shares)[::-1][:2]
        assert found.best[i] == best
        assert found.shares[i] == pytest.approx(shares, abs=1e-6)
        assert (found.probability[i], found.margin[i]) == pytest.approx((first, first - second), abs=1e-6)


def test_equal_categories_go_to_the_first() -> None:
    centres = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    found = categorize(np.array([[1.0, 0]], np.float16), centres, 100)
    assert (found.best.tolist(), found.margin.tolist()) == ([0], [0.0])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Workspace:
    workspace = Workspace(str(tmp_path_factory.mktemp("w")))
    dataset(workspace, samples(15), shards=2)
    run_stage(workspace, EmbedStage("m", settings_of(clip)))
    return workspace


def test_the_stage_scores_stored_vectors(space: Workspace, clip: Path) -> None:
    groups = {
        "photo": ("a photo", "a snapshot"),
        "logo": ("a logo",),
        "chart": ("a chart", "a map", "a plan"),
    }
    scorer = CategoriesScorer(
        type="categories", model="m", categories=groups, probabilities=True, batch_rows=4
    )
    embed = EmbedSettings(models={"m": settings_of(clip)})
    run_stage(space, ScoreStage("kind", scorer, embed))
    tables = [space.read_table(Family.scores("kind").path(f"{i:05d}")) for i in range(2)]
    table = pa.concat_tables(tables)
    assert table.column_names == [
        "uid",
        *(f"kind_{c}" for c in ("best", "probability", "margin", "p_photo", "p_logo", "p_chart")),
    ]
    assert set(table.schema.types[2:]) == {pa.float32()}
    loaded = load(settings_of(clip))
    encoded = [loaded.encode_texts(list(prompts)) for prompts in groups.values()]
    files = [Path(space.location(layout.embedding("m", "image", f"{i:05d}"))) for i in range(2)]
    for row, vector in zip(table.to_pylist(), np.concatenate([np.load(f) for f in files]), strict=True):
        best, shares = plain(vector, encoded, loaded.logit_scale)
        assert row["kind_best"] == list(groups)[best]
        assert [row["kind_p_photo"], row["kind_p_logo"], row["kind_p_chart"]] == pytest.approx(
            shares, abs=1e-5
        )
        assert row["kind_probability"] == pytest.approx(max(shares), abs=1e-5)


def test_order_and_prompts_count_where_they_decide(space: Workspace, clip: Path) -> None:
    embed = EmbedSettings(models={"m": settings_of(clip)})

    def stage(categories: dict[str, tuple[str, ...]]) -> ScoreStage:
        return ScoreStage("o", CategoriesScorer(type="categories", model="m", categories=categories), embed)

    run_stage(space, stage({"a": ("x",), "b": ("y",)}))
    plan = lambda categories: len(make_plan(stage(categories), space, RecordStore(space)).jobs)  # noqa: E731
    assert plan({"a": ("x",), "b": ("y",)}) == 0
    assert plan({"b": ("y",), "a": ("x",)}) == 2
    assert plan({"a": ("x",), "b": ("z",)}) == 2


def test_the_shipped_list_is_the_default() -> None:
    prompts = category_prompts("k", CategoriesScorer(type="categories", model="m"))
    assert list(shipped("category_prompts")) == ["data_types"]
    assert {"photo", "drawing", "screenshot", "logo", "document", "poster"} <= set(prompts)
    assert all(2 <= len(texts) <= 5 for texts in prompts.values())


def test_mistakes_are_named(tmp_path: Path) -> None:
    def load_list(text: str) -> None:
        (tmp_path / "list.yaml").write_text(text)
        category_prompts(
            "k", CategoriesScorer(type="categories", model="m", prompts=str(tmp_path / "list.yaml"))
        )

    cases = {
        "categories: {a: [x]}": "at least 2",
        "categories: {a: [x], b: []}": "'b' has no prompts",
        "categories: {a: [x], b: [x]}": "'x' is in 'a' and in 'b'",
        "categories: {a: [x], b: [' ']}": "empty prompt",
        "categories: {a: [x], B c: [y]}": "categories.B c",
        "positive: [a]": "unknown key 'positive'|categories: field required",
        "- a": "expected a mapping",
        "a: [": "not valid YAML",
    }
    for text, message in cases.items():
        with pytest.raises(UserError, match=message):
            load_list(text)
    with pytest.raises(UserError, match="did you mean data_types"):
        category_prompts("k", CategoriesScorer(type="categories", model="m", prompts="datatypes"))
    scorer = {"type": "categories", "model": "m", "prompts": "data_types", "categories": {"a": ["x"]}}
    with pytest.raises(ConfigError, match="not both"):
        check({"embed": {"models": {"m": {"model": "demo"}}}, "score": {"scorers": {"k": scorer}}})


def test_the_demo_clip_tells_demo_subjects_apart(tmp_path: Path) -> None:
    from curate.config.models import ModelSettings

    clip = load(ModelSettings(model="demo", device="cpu"))
    subjects = {"star": ("a red star", "two blue stars"), "fish": ("a red fish", "two blue fish")}
    prompts = clip.encode_texts([p for group in subjects.values() for p in group])
    questions = clip.encode_texts(["a yellow star", "a yellow fish"])
    found = categorize(questions, category_centres(prompts, [2, 2]), clip.logit_scale)
    assert [list(subjects)[i] for i in found.best] == ["star", "fish"]
