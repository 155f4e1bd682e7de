from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from curate.config.loading import check
from curate.dataset import layout
from curate.dataset.family import IMAGES
from curate.dataset.records import RecordStore
from curate.engine.plan import make_plan
from curate.errors import ConfigError, UserError
from curate.samples.moments import Moments
from curate.score.inputs import read_learned
from curate.score.kinds.mix import numbers
from curate.score.stage import ScoreStage, score_stages
from tests.unit.embed.clip_shards import run_stage
from tests.unit.score.vector_shards import DIM, EMBED, Pool, settings

WEIGHTS = {"m_similarity": 0.6, "text_length": -0.25, "original_width": 1.5}


def plain(columns: dict[str, list[float | None]], weights: dict[str, float]) -> list[float | None]:
    """Σ weight · (value − mean) / deviation, a row at a time."""
    facts = {}
    for name in weights:
        there = [v for v in columns[name] if v is not None]
        mean = sum(there) / len(there)
        facts[name] = (mean, (sum((v - mean) ** 2 for v in there) / len(there)) ** 0.5 or 1)
    rows: list[float | None] = []
    for i in range(len(columns[next(iter(weights))])):
        values = {name: columns[name][i] for name in weights}
        if any(v is None for v in values.values()):
            rows.append(None)
        else:
            rows.append(sum(w * (values[n] - facts[n][0]) / facts[n][1] for n, w in weights.items()))
    return rows


def known(pool: Pool) -> dict[str, list[Any]]:
    similarity = (pool.image.astype(np.float64) * pool.text.astype(np.float64)).sum(axis=1)
    return {
        "m_similarity": [None if np.isnan(v) else float(np.float32(v)) for v in similarity],
        "text_length": pool.column("text", "length"),
        "original_width": [
            v
            for shard in pool.shards
            for v in pool.workspace.read_table(IMAGES.path(shard))["original_width"].to_pylist()
        ],
    }


def test_a_mix_of_columns_of_models_scorers_and_images(tmp_path: Path) -> None:
    scores = []
    for shards in (1, 3):
        pool = Pool(tmp_path / str(shards), 60, shards)
        pool.score(mix={"type": "mix", "weights": WEIGHTS}, text={"type": "text"})
        found = pool.column("mix", "score")
        for value, expected in zip(found, plain(known(pool), WEIGHTS), strict=True):
            assert value is None if expected is None else value == pytest.approx(expected, abs=1e-5)
        assert [i for i, v in enumerate(found) if v is None] == [3, 7]
        scores.append(found)
    assert scores[0][0] == pytest.approx(scores[1][0], abs=1e-6)


def test_what_was_learned_replays_the_score(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 40, 2)
    pool.score(mix={"type": "mix", "weights": WEIGHTS}, text={"type": "text"})
    learned = read_learned(pool.workspace, layout.learned("mix"))
    columns, total = known(pool), np.zeros(40)
    for i, (name, weight) in enumerate(WEIGHTS.items()):
        values = np.array([np.nan if v is None else v for v in columns[name]])
        total += weight * (values - learned["mean"][i]) / learned["std"][i]
        assert learned["count"][i] == np.isfinite(values).sum()
    for value, expected in zip(pool.column("mix", "score"), total, strict=True):
        assert value is None if np.isnan(expected) else value == np.float32(expected)


def test_columns_as_they_are(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 20, 2)
    pool.score(mix={"type": "mix", "weights": {"original_width": 2.0}, "standardise": False})
    assert pool.column("mix", "score") == [2.0 * v for v in known_width(pool)]


def known_width(pool: Pool) -> list[int]:
    return [
        v
        for shard in pool.shards
        for v in pool.workspace.read_table(IMAGES.path(shard))["original_width"].to_pylist()
    ]


def test_a_mix_of_mixes_and_a_column_of_one_value(tmp_path: Path) -> None:
    """A column that never changes says nothing: it adds 0, whatever its weight."""
    pool = Pool(tmp_path, 20, 2)
    pool.score(
        outer={"type": "mix", "weights": {"inner_score": 1.0, "text_length": 1e6}},
        inner={"type": "mix", "weights": {"original_width": 1.0}},
        text={"type": "text"},
    )
    assert len(set(pool.column("text", "length"))) == 1
    assert pool.column("outer", "score") == pytest.approx(pool.column("inner", "score"), abs=1e-6)


def test_other_weights_redo_the_mix_only(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 20, 2)
    made = settings(mix={"type": "mix", "weights": {"m_similarity": 1.0}})["mix"]
    other = settings(mix={"type": "mix", "weights": {"m_similarity": 2.0}})["mix"]
    pool.run({"mix": made})
    plans = [
        make_plan(ScoreStage("mix", one, EMBED), pool.workspace, RecordStore(pool.workspace))
        for one in (made, other)
    ]
    assert [len(plan.jobs) for plan in plans] == [0, 2]


def test_columns_that_are_no_numbers_or_not_there_are_refused(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 20, 2)
    with pytest.raises(UserError, match=r"score\.scorers\.mix\.weights\.url: a mix needs numbers"):
        pool.score(mix={"type": "mix", "weights": {"url": 1.0}})
    with pytest.raises(UserError, match=r"score\.scorers\.mix: unknown column 'm_similarty'; did you mean"):
        pool.score(mix={"type": "mix", "weights": {"m_similarity": 1.0, "m_similarty": 1.0}})
    with pytest.raises(ConfigError, match="the weight of 'a' is inf"):
        settings(mix={"type": "mix", "weights": {"a": float("inf")}})


@limits(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=6), max_size=6))
def test_moments_of_parts_are_those_of_the_whole(parts: list[list[float]]) -> None:
    found = Moments()
    for part in parts:
        found.add(np.array(part))
    whole = np.array([v for part in parts for v in part])
    assert found.count == len(whole)
    if len(whole):
        assert found.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
        assert found.std == pytest.approx(whole.std(), rel=1e-6, abs=1e-5)


def test_what_is_not_finite_is_missing() -> None:
    column = pa.array([1.0, None, float("nan"), float("inf"), -2.0], pa.float32())
    assert numbers(column, "c", "p").tolist()[0::4] == [1.0, -2.0]
    assert np.isnan(numbers(column, "c", "p")[1:4]).all()
    assert numbers(pa.array([True, False, None]), "c", "p")[:2].tolist() == [1.0, 0.0]
    assert numbers(pa.array([2**60, None], pa.int64()), "c", "p")[0] == 2.0**60


def examples() -> list[str]:
    """The YAML of the page about these scorers."""
    page = (Path(__file__).parents[3] / "docs" / "embedding-scores.md").read_text("utf-8")
    return re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("text", examples(), ids=lambda text: re.findall(r"\w+", text)[-1])
def test_examples_of_the_page_are_configs(text: str) -> None:
    config = check(yaml.safe_load(text))
    for name, experiment in config.filter.experiments.items():
        assert experiment.rules, name


def test_the_page_shows_every_kind() -> None:
    shown = {
        scorer["type"]
        for text in examples()
        for scorer in yaml.safe_load(text).get("score", {"scorers": {}})["scorers"].values()
    }
    assert shown == {"negclip", "normsim", "mix", "cluster", "concepts", "held_out", "table"}


def test_an_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mix of negCLIPLoss and NormSim, on a pool of which the models are made up."""
    monkeypatch.chdir(tmp_path)
    np.save("imagenet-train-l14.npy", np.random.default_rng(0).normal(size=(40, DIM)))
    (text,) = (text for text in examples() if "mflyt" in text)
    config = check(yaml.safe_load(text))
    pool = Pool(tmp_path / "w", 30, 2, models=("b32", "l14"))
    for stage in score_stages(config.score, config.embed):
        run_stage(pool.workspace, stage)
    found = pool.column("mflyt", "score")
    assert [i for i, value in enumerate(found) if value is None] == [3, 7]
    there = [value for value in found if value is not None]
    assert np.mean(there) == pytest.approx(0, abs=0.2)
    assert np.std(there) > 0.1
