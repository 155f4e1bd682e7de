from __future__ import annotations

import io
import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from curate.config.scorers.normsim import NormSimScorer
from curate.errors import ConfigError, UserError
from curate.score.contract import make_scorer
from curate.score.kinds.normsim import normsim_2, normsim_inf, second_moments
from curate.score.vectors.files import find_vectors, unit_chunks
from tests.unit.score.vector_shards import DIM, WEIGHTS, Pool, settings, unit

CPU = torch.device("cpu")


def plain(stored: np.ndarray, targets: list[np.ndarray], norm: float) -> list[float | None]:
    """‖G f‖_p, one row at a time; targets that are zero or not finite do not count."""
    out: list[float | None] = []
    good = [g.astype(np.float64) for array in targets for g in array]
    good = [g / np.linalg.norm(g) for g in good if np.isfinite(g).all() and np.linalg.norm(g) > 0]
    for f in stored.astype(np.float64):
        values = [abs(float(f @ g)) for g in good]
        if not np.isfinite(f).all():
            out.append(None)
        else:
            out.append(max(values) if norm == np.inf else float(np.sqrt(sum(v * v for v in values))))
    return out


@limits(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(1, 12), st.integers(0, 12), st.booleans())
def test_both_norms_are_their_definition(seed: int, n: int, a: int, b: int, gaps: bool) -> None:
    rng = np.random.default_rng(seed)
    stored = unit(rng, n)
    targets = [rng.normal(size=(a, DIM)), unit(rng, b)]
    if gaps:
        stored[1:2] = np.nan
        targets[0][1:2] = 0
        targets[1][:1] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.score.vectors.files.COLS", 5)
        largest = normsim_inf(stored, targets, CPU)
        two = normsim_2(stored, second_moments(targets, DIM), CPU)
    for norm, found in ((np.inf, largest), (2, two)):
        for value, expected in zip(found, plain(stored, targets, norm), strict=True):
            assert np.isnan(value) if expected is None else value == pytest.approx(expected, abs=1e-6)


def test_stored_vectors_of_a_pool(tmp_path: Path) -> None:
    targets = np.random.default_rng(1).normal(size=(50, DIM)).astype(np.float32)
    np.save(tmp_path / "targets.npy", targets)
    facts = {"type": "normsim", "model": "m", "targets": str(tmp_path / "targets.npy")}
    pool = Pool(tmp_path / "w", 40, 3)
    pool.score(a=facts, b={**facts, "norm": 2}, t={**facts, "modality": "text"})
    for name, stored, norm in (("a", pool.image, np.inf), ("b", pool.image, 2), ("t", pool.text, np.inf)):
        expected = plain(stored, [targets], norm)
        for value, wanted in zip(pool.column(name, "score"), expected, strict=True):
            assert value is None if wanted is None else value == pytest.approx(wanted, abs=1e-6)
    assert pool.column("a", "score").count(None) == 2


def test_scores_are_those_of_any_sharding(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.random.default_rng(1).normal(size=(50, DIM)))
    scores = []
    for shards in (1, 4):
        pool = Pool(tmp_path / str(shards), 60, shards)
        facts = {"type": "normsim", "model": "m", "targets": str(tmp_path / "t.npy")}
        pool.score(a=facts, b={**facts, "norm": 2})
        scores.append((pool.column("a", "score"), pool.column("b", "score")))
    assert scores[0] == scores[1]


def test_every_form_of_targets(tmp_path: Path) -> None:
    """npy, npz, folder, embeddings folder: the same vectors, whichever way they are stored."""
    vectors = unit(np.random.default_rng(2), 9)
    np.save(tmp_path / "v.npy", vectors)
    np.savez(tmp_path / "one.npz", vectors)
    np.savez(tmp_path / "two.npz", l14_img=vectors, l14_txt=-vectors)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "b.npy", vectors[4:])
    np.save(folder / "a.npy", vectors[:4])
    (folder / "readme.txt").write_text("not vectors")
    stored = tmp_path / "embeddings" / "b32"
    for kind, values in (("img_emb", vectors), ("text_emb", unit(np.random.default_rng(3), 9))):
        (stored / kind).mkdir(parents=True)
        np.save(stored / kind / f"{kind}_00000.npy", values)
    (stored / "model.json").write_text(json.dumps({"weights": WEIGHTS}))
    paths = [
        ("v.npy", None),
        ("one.npz", None),
        ("two.npz", "l14_img"),
        ("folder", None),
        ("embeddings/b32", None),
        ("embeddings/b32/img_emb", None),
    ]
    for path, key in paths:
        found = find_vectors(str(tmp_path / path), key, "p")
        with found.open(DIM) as arrays:
            chunks = list(unit_chunks(arrays, CPU))
        assert [chunk.first for chunk in chunks] == ([0, 4] if path == "folder" else [0])
        joined = torch.cat([chunk.vectors for chunk in chunks]).numpy()
        assert joined == pytest.approx(vectors.astype(np.float32), abs=1e-3), path
        assert np.linalg.norm(joined, axis=1) == pytest.approx(1, abs=1e-6)
        assert found.weights == (WEIGHTS if "b32" in path else None)


def refuse(tmp_path: Path, message: str, **facts: object) -> None:
    pool = Pool(tmp_path / "w", 10, 1)
    with pytest.raises(UserError, match=message):
        pool.score(a={"type": "normsim", "model": "m", **facts})


def test_another_dimension_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.ones((3, 7), np.float32))
    words = r"score\.scorers\.a\.targets: .*t\.npy has vectors of 7 dimensions, the model's have 16"
    refuse(tmp_path, words, targets=str(tmp_path / "t.npy"))
    refuse(tmp_path / "2", words, targets=str(tmp_path / "t.npy"), norm=2)


def test_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other" / "img_emb").mkdir(parents=True)
    np.save(tmp_path / "other/img_emb/img_emb_0.npy", np.ones((3, DIM), np.float16))
    (tmp_path / "other/model.json").write_text(json.dumps({"weights": "b" * 32}))
    words = r"score\.scorers\.a\.targets: .* made with weights bbbbbbbbbbbb…, the embeddings of 'm' with aaaa"
    refuse(tmp_path, words, targets=str(tmp_path / "other"))
    (tmp_path / "other/model.json").write_text("[]")
    refuse(tmp_path / "2", "not the facts of a model", targets=str(tmp_path / "other"))


def test_files_that_are_no_vectors_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.ones((300, DIM)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-100])
    np.save(tmp_path / "ints.npy", np.ones((3, DIM), int))
    np.savez(tmp_path / "two.npz", a=np.ones((1, DIM)), b=np.ones((1, DIM)))
    (tmp_path / "half.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:200])
    (tmp_path / "text.npy").write_text("no vectors at all " * 40)
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "zeros.npy", np.zeros((3, DIM)))
    cases = {
        "gone.npy": "no such file",
        "cut.npy": "not a whole npy",
        "ints.npy": "expected vectors",
        "two.npz": "holds a, b; say which one with `key`",
        "half.npz": "not a whole npy or npz",
        "text.npy": "not a whole npy",
        "empty": "no .npy or .npz file in that folder",
        "zeros.npy": "no target has an embedding",
    }
    zeros = str(tmp_path / "zeros.npy")
    refuse(tmp_path / "two", r"score\.scorers\.a\.targets: no target has", targets=zeros, norm=2)
    for i, (name, words) in enumerate(cases.items()):
        refuse(tmp_path / str(i), rf"score\.scorers\.a\.targets: .*{words}", targets=str(tmp_path / name))


def test_other_targets_under_the_same_name_are_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "t.npy"
    facts = {"type": "normsim", "model": "m", "targets": str(path)}
    np.save(path, np.ones((3, DIM)))
    before = make_scorer("a", settings(a=facts)["a"]).facts
    np.save(path, np.ones((4, DIM)))
    after = make_scorer("a", settings(a=facts)["a"]).facts
    assert before != after
    assert str(path) not in json.dumps(after)


def test_targets_that_change_on_a_worker_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npy"
    np.save(path, np.ones((30, DIM)))
    found = find_vectors(str(path), None, "p")
    np.save(path, np.ones((40, DIM)))
    with pytest.raises(UserError, match="has changed"), found.open(DIM):
        pass


def test_infinity_may_be_written_as_yaml_does() -> None:
    made = settings(a={"type": "normsim", "model": "m", "targets": "t", "norm": float("inf")})["a"]
    assert isinstance(made, NormSimScorer)
    assert made.norm == "inf"
    with pytest.raises(ConfigError):
        settings(a={"type": "normsim", "model": "m", "targets": "t", "norm": 3})


def test_targets_of_an_object_store(tmp_path: Path) -> None:
    """Through any fsspec URL: here files and a folder that lie in memory."""
    targets = unit(np.random.default_rng(2), 30)
    store = fsspec.filesystem("memory")
    for name, part in (("a", targets[:10]), ("b", targets[10:])):
        stream = io.BytesIO()
        np.save(stream, part)
        store.pipe_file(f"/targets-{tmp_path.name}/{name}.npy", stream.getvalue())
    np.save(tmp_path / "t.npy", targets)
    pool = Pool(tmp_path / "w", 20, 2)
    facts = {"type": "normsim", "model": "m"}
    pool.score(
        a={**facts, "targets": f"memory://targets-{tmp_path.name}"},
        b={**facts, "targets": str(tmp_path / "t.npy")},
    )
    assert pool.column("a", "score") == pytest.approx(pool.column("b", "score"), abs=1e-6, nan_ok=True)
