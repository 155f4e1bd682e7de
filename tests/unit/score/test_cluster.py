from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from curate.dataset import layout
from curate.dataset.family import Family
from curate.errors import ConfigError, UserError
from curate.score.inputs import read_learned
from curate.score.vectors.kmeans import assign, kmeans
from tests.unit.score.vector_shards import DIM, Pool, settings, unit

CPU = torch.device("cpu")


def plain_kmeans(
    points: np.ndarray, k: int, iterations: int, spherical: bool
) -> tuple[np.ndarray, list[int]]:
    """Lloyd's algorithm with loops; a cluster without points takes the point farthest from its own."""

    def scaled(c: np.ndarray) -> np.ndarray:
        lengths = np.linalg.norm(c, axis=1, keepdims=True)
        return np.where(lengths > 0, c / np.where(lengths > 0, lengths, 1), c) if spherical else c

    wide = points.astype(np.float64)
    centroids = wide[:k].copy()
    before: list[int] | None = None
    nearest: list[int] = []
    for _ in range(iterations):
        centroids = scaled(centroids)
        if spherical:
            nearest = [int(np.argmax(centroids @ p)) for p in wide]
        else:
            nearest = [int(np.argmin(((centroids - p) ** 2).sum(axis=1))) for p in wide]
        if nearest == before:
            break
        before = nearest
        cosine = [
            float(centroids[c] @ p / max(np.linalg.norm(centroids[c]), 1e-300))
            for c, p in zip(nearest, wide, strict=True)
        ]
        far = iter(np.argsort(cosine, kind="stable"))
        new = [
            wide[[i for i, n in enumerate(nearest) if n == c]].mean(axis=0) if c in nearest else None
            for c in range(k)
        ]
        centroids = np.array([wide[next(far)] if mean is None else mean for mean in new])
    return scaled(centroids), [nearest.count(c) for c in range(k)]


@limits(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 40), st.integers(1, 6), st.booleans())
def test_training_is_lloyds_algorithm(seed: int, k: int, more: int, iterations: int, spherical: bool) -> None:
    points = unit(np.random.default_rng(seed), k + more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.score.vectors.kmeans.COLS", 3)
        centroids, sizes = kmeans(points, k, iterations, spherical, CPU)
    expected, counts = plain_kmeans(points, k, iterations, spherical)
    assert centroids == pytest.approx(expected, abs=1e-5)
    assert sizes.tolist() == counts


def test_a_cluster_that_loses_its_points_starts_anew() -> None:
    """Two equal first points: the second cluster gets none, and moves to the farthest point."""
    rng = np.random.default_rng(0)
    near = unit(rng, 1)
    points = np.concatenate([near, near, near, -near, -near]).astype(np.float16)
    centroids, sizes = kmeans(points, 2, 10, True, CPU)
    assert sizes.tolist() == [3, 2]
    assert centroids[1] == pytest.approx(-near[0].astype(np.float32), abs=1e-3)


@pytest.mark.parametrize("spherical", [True, False])
def test_assignment_is_the_nearest_centroid(spherical: bool) -> None:
    rng = np.random.default_rng(3)
    vectors = unit(rng, 50)
    vectors[4] = np.nan
    centroids = rng.normal(size=(7, DIM)).astype(np.float32)
    numbers, cosines = assign(vectors, centroids, spherical, CPU)
    lengths = np.linalg.norm(centroids.astype(np.float64), axis=1)
    for i, vector in enumerate(vectors.astype(np.float64)):
        if i == 4:
            assert (numbers[i], np.isnan(cosines[i])) == (-1, True)
            continue
        by_cosine = centroids.astype(np.float64) @ vector / lengths
        apart = ((centroids.astype(np.float64) - vector) ** 2).sum(axis=1)
        assert numbers[i] == (np.argmax(by_cosine) if spherical else np.argmin(apart))
        assert cosines[i] == pytest.approx(by_cosine[numbers[i]], abs=1e-6)


def test_trained_clusters_are_the_same_for_any_sharding(tmp_path: Path) -> None:
    facts = {"type": "cluster", "model": "m", "clusters": 5, "iterations": 4, "sample": 70}
    ids, learned = [], []
    for i, shards in enumerate((1, 4)):
        torch.set_num_threads(i + 1)
        pool = Pool(tmp_path / str(shards), 120, shards)
        pool.score(c=facts)
        ids.append((pool.column("c", "id"), pool.column("c", "similarity")))
        learned.append(read_learned(pool.workspace, layout.learned("c")))
    assert ids[0] == ids[1]
    assert np.array_equal(learned[0]["centroids"], learned[1]["centroids"])
    assert np.array_equal(learned[0]["sizes"], learned[1]["sizes"])
    assert learned[0]["sizes"].sum() == 70
    assert np.linalg.norm(learned[0]["centroids"], axis=1) == pytest.approx(1, abs=1e-6)
    assert [i for i, value in enumerate(ids[0][0]) if value is None] == [3, 7]
    table = pool.workspace.read_table(Family.scores("c").path(pool.shards[0]))
    assert [str(field.type) for field in table.schema] == ["string", "int32", "float"]


def test_seed_changes_the_sample(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 80, 2)
    facts = {"type": "cluster", "model": "m", "clusters": 4, "sample": 20}
    pool.score(a=facts, b={**facts, "seed": 1})
    learned = [read_learned(pool.workspace, layout.learned(name))["centroids"] for name in "ab"]
    assert not np.array_equal(*learned)


def test_centroids_of_a_file_and_targets(tmp_path: Path) -> None:
    """DataComp's image-based filter: does the row's cluster hold a target?"""
    rng = np.random.default_rng(6)
    centroids = rng.normal(size=(6, DIM))
    np.save(tmp_path / "c.npy", centroids)
    pool = Pool(tmp_path / "w", 60, 3)
    np.save(tmp_path / "t.npy", pool.image[[0, 1, 2, 3]].astype(np.float32))
    files = {"centroids": str(tmp_path / "c.npy"), "targets": str(tmp_path / "t.npy")}
    pool.score(c={"type": "cluster", "model": "m", **files})
    expected, _ = assign(pool.image, centroids.astype(np.float32), True, CPU)
    assert pool.column("c", "id") == [None if i < 0 else i for i in expected.tolist()]
    held = {expected[i] for i in (0, 1, 2)}
    assert pool.column("c", "target") == [None if i < 0 else i in held for i in expected.tolist()]


def test_centroids_as_they_are_stored(tmp_path: Path) -> None:
    """DataComp compares with the means of clusters, which are shorter than 1 and not all alike."""
    rng = np.random.default_rng(6)
    centroids = (rng.normal(size=(6, DIM)) * rng.uniform(0.2, 3, (6, 1))).astype(np.float32)
    np.save(tmp_path / "c.npy", centroids)
    pool = Pool(tmp_path / "w", 60, 3)
    np.save(tmp_path / "t.npy", pool.image[[0, 1, 2]].astype(np.float32))
    files = {"centroids": str(tmp_path / "c.npy"), "targets": str(tmp_path / "t.npy")}
    pool.score(
        stored={"type": "cluster", "model": "m", "inner_product": True, **files},
        unit={"type": "cluster", "model": "m", **files},
    )
    missing = np.isnan(pool.image.astype(np.float64)).any(axis=1)
    nearest = (np.nan_to_num(pool.image.astype(np.float64)) @ centroids.T).argmax(axis=1)
    expected = [None if gone else int(i) for i, gone in zip(nearest, missing, strict=True)]
    assert pool.column("stored", "id") == expected != pool.column("unit", "id")
    held = set(nearest[:3].tolist())
    assert pool.column("stored", "target") == [None if i is None else i in held for i in expected]


def refuse(tmp_path: Path, message: str, **facts: Any) -> None:
    pool = Pool(tmp_path / "w", 12, 2)
    with pytest.raises(UserError, match=message):
        pool.score(c={"type": "cluster", "model": "m", **facts})


def test_more_clusters_than_embeddings_are_refused(tmp_path: Path) -> None:
    words = r"score\.scorers\.c\.clusters: 11 clusters, but the pool has only 10 embeddings"
    refuse(tmp_path, words, clusters=11)


def test_centroids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "narrow.npy", np.ones((20, 3)))
    refuse(tmp_path / "1", r"score\.scorers\.c\.centroids: .*3 dim", centroids=str(tmp_path / "narrow.npy"))
    np.save(tmp_path / "zero.npy", np.zeros((20, DIM)))
    refuse(tmp_path / "2", r"a centroid is zero or no number", centroids=str(tmp_path / "zero.npy"))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "either `clusters`"),
        ({"clusters": 3, "centroids": "x"}, "either `clusters`"),
        ({"clusters": 30, "sample": 20}, "`sample` must not be smaller"),
    ],
)
def test_settings_that_cannot_be_meant(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings(c={"type": "cluster", "model": "m", **facts})
