from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.workspace import Workspace, ref_of
from curate.errors import DataError
from curate.rules.kinds import semdedup
from curate.rules.kinds.semdedup import nearest_before
from tests.unit.filter.filter_pool import (
    MODEL,
    Row,
    as_table,
    commit,
    cut_in_shards,
    kept_uids,
    run_experiment,
    stage_of,
    uid_from,
    write_pool,
)

TYPES = {"text_cluster": pa.int32(), "text_score": pa.float64()}
Vectors = npt.NDArray[np.float16]


def pool_with_vectors(
    folder: Path, rows: Sequence[Row], vectors: dict[str, Vectors], shards: int
) -> Workspace:
    parts = cut_in_shards(rows, shards)
    workspace = write_pool(folder, parts, TYPES)
    for i, part in enumerate(parts):
        shard = layout.shard_name(i, shards)
        path = layout.embedding(MODEL, "image", shard)
        with workspace.writing(path) as temporary:
            with temporary.open("wb") as stream:
                np.save(stream, np.array([vectors[r["uid"]] for r in part], np.float16).reshape(-1, 4))
            ref = ref_of(temporary, path)
        types = {"uid": pa.string(), "similarity": pa.float32()}
        table = workspace.write_table(Family.embeddings(MODEL).path(shard), as_table(part, types))
        commit(workspace, f"embed/{MODEL}", shard, [ref, table])
    return workspace


def made_up(seed: int, rows: int) -> tuple[list[Row], dict[str, Vectors]]:
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(4, 4))
    found: list[Row] = []
    vectors = {}
    for number in sorted(set(draw.integers(0, 2**63 - 1, rows).tolist())):
        uid = uid_from(number << 65)
        vector = centres[draw.integers(4)] + draw.normal(size=4) * draw.choice([0.0, 0.05, 0.5])
        vectors[uid] = (vector / np.linalg.norm(vector)).astype(np.float16)
        if draw.random() < 0.1:
            vectors[uid] = np.full(4, np.nan, np.float16)
        cluster = draw.choice([None, 0, 1, 257])
        found.append({"uid": uid, "text_cluster": cluster, "text_score": float(draw.choice([0.1, 0.5, 0.9]))})
    return found, vectors


def expected(rows: Sequence[Row], vectors: dict[str, Vectors], epsilon: float, lowest: bool) -> list[str]:
    """The paper's step in plain Python: a row goes for any row before it, gone or not."""
    kept = []
    for row in rows:
        cluster, vector = row["text_cluster"], vectors[row["uid"]].astype(np.float32)
        before = [
            vectors[other["uid"]].astype(np.float32)
            for other in rows
            if other["text_cluster"] == cluster
            and np.isfinite(vectors[other["uid"]]).all()
            and order(other, lowest) < order(row, lowest)
        ]
        cosines = [float(v @ vector / np.linalg.norm(v) / np.linalg.norm(vector)) for v in before]
        alone = cluster is None or not np.isfinite(vector).all()
        if alone or not any(c > 1 - epsilon for c in cosines):
            kept.append(row["uid"])
    return kept


def order(row: Row, lowest: bool) -> tuple[Any, ...]:
    return (row["text_score"], row["uid"]) if lowest else (row["uid"],)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.sampled_from([0.003, 0.031, 0.3]), st.booleans())
def test_as_the_paper_has_it(seed: int, count: int, epsilon: float, lowest: bool) -> None:
    rows, vectors = made_up(seed, count)
    rule: dict[str, Any] = {"semdedup": MODEL, "cluster": "text_cluster", "epsilon": epsilon}
    if lowest:
        rule["lowest"] = "text_score"
    answers = []
    for shards in (1, 5):
        with tempfile.TemporaryDirectory() as folder:
            workspace = pool_with_vectors(Path(folder), rows, vectors, shards)
            run_experiment(workspace, "e", {"rules": {"r": rule}})
            assert kept_uids(workspace, "e") == expected(rows, vectors, epsilon, lowest)
            answers.append(workspace.read_bytes(layout.selection_file("e", "duplicates_00.parquet")))
    assert answers[0] == answers[1]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float16)
    whole = nearest_before(vectors, 0.05)
    monkeypatch.setattr(semdedup, "_BLOCK", 7)
    assert nearest_before(vectors, 0.05).tolist() == whole.tolist()
    assert 0 < np.count_nonzero(whole != np.arange(200)) < 200


def test_a_chain_goes_as_far_as_its_links_reach() -> None:
    angles = np.deg2rad([0, 10, 20, 30])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    assert nearest_before(vectors, 1 - np.cos(np.deg2rad(12))).tolist() == [0, 0, 1, 2]


def test_vectors_are_inputs_and_are_checked(tmp_path: Path) -> None:
    rows, vectors = made_up(1, 20)
    workspace = pool_with_vectors(tmp_path, rows, vectors, 2)
    rule = {"rules": {"r": {"semdedup": MODEL, "cluster": "text_cluster", "epsilon": 0.1}}}
    (unit,) = stage_of("e", rule).units(workspace)
    path = layout.embedding(MODEL, "image", "00001")
    assert path in [ref.path for ref in unit.inputs]
    np.save(tmp_path / path, np.zeros((3, 4), np.float16))
    with pytest.raises(DataError, match=r"expected \d+ float16 vectors, got float16 \(3, 4\)"):
        run_experiment(workspace, "e", rule)
    missing = {"rules": {"r": {"semdedup": "other", "cluster": "text_cluster", "epsilon": 0.1}}}
    with pytest.raises(DataError, match="which embed/other has not made"):
        stage_of("e", missing).units(workspace)
