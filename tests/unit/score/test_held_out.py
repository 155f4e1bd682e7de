from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from curate.errors import UserError
from curate.score.kinds.held_out import nearest
from curate.score.vectors.files import find_vectors
from tests.unit.score.vector_shards import DIM, Pool, unit


def test_copies_are_found_with_file_and_row(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "w", 40, 3)
    held = unit(np.random.default_rng(9), 30).astype(np.float32)
    held[4] = pool.image[10].astype(np.float32) * 3
    held[25] = pool.image[20].astype(np.float32)
    held[26] = np.nan
    (tmp_path / "eval").mkdir()
    np.save(tmp_path / "eval" / "imagenet.npy", held[:20])
    np.save(tmp_path / "eval" / "mscoco.npy", held[20:])
    pool.score(h={"type": "held_out", "model": "m", "vectors": str(tmp_path / "eval")})
    similarity, file, row = (pool.column("h", name) for name in ("similarity", "file", "row"))
    assert (file[10], row[10]) == ("imagenet.npy", 4)
    assert (file[20], row[20]) == ("mscoco.npy", 5)
    assert similarity[10] == pytest.approx(1, abs=1e-3)
    assert (similarity[3], file[3], row[3]) == (None, None, None)
    assert [i for i, value in enumerate(similarity) if value is None] == [3, 7]
    good = np.delete(held, 26, axis=0).astype(np.float64)
    good /= np.linalg.norm(good, axis=1, keepdims=True)
    for i in set(range(40)) - {3, 7}:
        cosines = [float(pool.image[i].astype(np.float64) @ g) for g in good]
        best = int(np.argmax(cosines))
        best += best >= 26
        assert similarity[i] == pytest.approx(max(cosines), abs=1e-6)
        assert row[i] + (20 if file[i] == "mscoco.npy" else 0) == best


def test_a_single_file_is_named(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "w", 12, 2)
    np.savez(tmp_path / "v.npz", pool.text[5:6])
    facts = {"type": "held_out", "model": "m", "vectors": str(tmp_path / "v.npz"), "modality": "text"}
    pool.score(h=facts)
    assert set(pool.column("h", "file")) == {"v.npz"}
    assert set(pool.column("h", "row")) == {0}
    assert pool.column("h", "similarity")[5] == pytest.approx(1, abs=1e-3)


def test_bytes_do_not_change(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", unit(np.random.default_rng(1), 100))
    made = []
    for i in range(2):
        pool = Pool(tmp_path / str(i), 40, 3)
        pool.score(h={"type": "held_out", "model": "m", "vectors": str(tmp_path / "v.npy")})
        made.append(pool.bytes_of("h"))
    assert made[0] == made[1]


def test_vectors_without_a_usable_row_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.full((20, DIM), np.nan, np.float32))
    pool = Pool(tmp_path / "w", 12, 2)
    with pytest.raises(UserError, match=r"score\.scorers\.h\.vectors: no row has an embedding"):
        pool.score(h={"type": "held_out", "model": "m", "vectors": str(tmp_path / "v.npy")})
    np.save(tmp_path / "v.npy", np.ones((20, DIM - 1), np.float32))
    with pytest.raises(UserError, match="has vectors of 15 dimensions"):
        pool.score(h={"type": "held_out", "model": "m", "vectors": str(tmp_path / "v.npy")})


def test_a_folder_of_clip_retrieval_is_a_held_out_set(fixtures_dir: Path) -> None:
    folder = fixtures_dir / "embeddings" / "clip_retrieval_output" / "embeddings"
    held = find_vectors(str(folder), None, "p")
    assert [file.name for file in held.files] == ["img_emb_0.npy"]
    pictures = np.load(folder / "img_emb" / "img_emb_0.npy")
    with held.open(512) as arrays:
        values, rows = nearest(pictures[::-1].copy(), arrays, torch.device("cpu"))
    assert rows.tolist() == list(range(9))[::-1]
    assert values == pytest.approx(1, abs=1e-3)
