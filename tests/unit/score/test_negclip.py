from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from curate.clip.vectors import map_npy
from curate.dataset import layout
from curate.errors import ConfigError, UserError
from curate.score import devices
from curate.score.contract import release_pages
from curate.score.inputs import read_learned
from curate.score.kinds.negclip import Pool as Reference
from curate.score.kinds.negclip import batches, negclip
from curate.score.stage import LearnStage
from curate.score.vectors.compute import row_blocks
from curate.score.vectors.sample import draw, find, hash_words, uid_words
from tests.unit.score.vector_shards import EMBED, Pool, settings, unit

CPU = torch.device("cpu")


def plain_sum(x: np.ndarray, others: list[np.ndarray], temperature: float) -> float:
    """t · log Σ exp(x·y / t) in Python's floats."""
    logits = [float(x.astype(np.float64) @ y.astype(np.float64)) / temperature for y in others]
    top = max(logits)
    return temperature * (top + math.log(math.fsum(math.exp(z - top) for z in logits)))


def plain(
    image: np.ndarray, text: np.ndarray, rows: np.ndarray, pool: Reference, temperature: float
) -> list[tuple[float, float, float] | None]:
    """The formula, one row, one batch and one member at a time."""
    out: list[tuple[float, float, float] | None] = []
    for i in range(len(image)):
        f, g = image[i].astype(np.float64), text[i].astype(np.float64)
        if not (np.isfinite(f).all() and np.isfinite(g).all()):
            out.append(None)
            continue
        norms = []
        for k in range(pool.member.shape[1]):
            batch = [j for j in range(len(pool.member)) if pool.member[j, k] and j != rows[i]]
            scaled = temperature * math.log(pool.batch_size / (len(batch) + 1))
            norms.append(
                (
                    plain_sum(f, [g, *(pool.text[j] for j in batch)], temperature) + scaled,
                    plain_sum(g, [f, *(pool.image[j] for j in batch)], temperature) + scaled,
                )
            )
        of_image, of_text = np.mean(norms, axis=0)
        out.append((float(f @ g) - (of_image + of_text) / 2, of_image, of_text))
    return out


@limits(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 12),
    st.integers(1, 40),
    st.integers(2, 30),
    st.integers(1, 4),
    st.sampled_from([0.01, 0.07, 1.0, 0.001]),
    st.sampled_from([3, 7, 4096]),
)
def test_it_is_the_formula(
    seed: int, n: int, m: int, size: int, draws: int, temperature: float, cols: int
) -> None:
    rng = np.random.default_rng(seed)
    image, text = unit(rng, n), unit(rng, n)
    pool = Reference(unit(rng, m), unit(rng, m), batches(m, size, draws, seed), size)
    rows = np.full(n, -1)
    for i in range(0, min(n, m), 2):
        rows[i] = i
        pool.image[i], pool.text[i] = image[i], text[i]
    if n > 4:
        image[1], text[3] = np.nan, np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.score.kinds.negclip.COLS", cols)
        found = negclip(image, text, rows, pool, temperature, CPU)
    for i, expected in enumerate(plain(image, text, rows, pool, temperature)):
        got = (found.score[i], found.image_norm[i], found.text_norm[i])
        assert np.isnan(got).all() if expected is None else got == pytest.approx(expected, abs=2e-6)


def test_a_pool_that_is_one_batch_gives_the_papers_formula_literally(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 20, 3, gaps=())
    pool.score(n={"type": "negclip", "model": "m", "batch_size": 20})
    for i, score in enumerate(pool.column("n", "score")):
        f, g = pool.image[i].astype(np.float64), pool.text[i].astype(np.float64)
        to_texts = sum(math.exp(float(f @ pool.text[j].astype(np.float64)) / 0.01 - 90) for j in range(20))
        to_images = sum(math.exp(float(g @ pool.image[j].astype(np.float64)) / 0.01 - 90) for j in range(20))
        expected = f @ g - 0.005 * (math.log(to_texts) + 90) - 0.005 * (math.log(to_images) + 90)
        assert score == pytest.approx(expected, abs=2e-6)


def test_large_cosines_do_not_overflow() -> None:
    same = unit(np.random.default_rng(0), 4)
    found = negclip(same, same, np.arange(4), Reference(same, same, np.ones((4, 1), bool), 4), 0.001, CPU)
    assert np.isfinite(found.score).all()
    assert (found.score <= 1e-3).all()


def test_batches_have_their_size_and_differ() -> None:
    member = batches(100, 30, 5, seed=1)
    assert member.sum(axis=0).tolist() == [30] * 5
    assert len({tuple(column) for column in member.T.tolist()}) == 5
    assert batches(30, 30, 5, seed=1).tolist() == [[True]] * 30
    assert not np.array_equal(member, batches(100, 30, 5, seed=2))


def test_scores_do_not_depend_on_shards(tmp_path: Path) -> None:
    """Nor does the sample: the same rows are drawn however they are cut."""
    facts = {"type": "negclip", "model": "m", "batch_size": 16, "draws": 3, "sample": 40}
    scores, learned = [], []
    for shards in (1, 4):
        pool = Pool(tmp_path / str(shards), 120, shards)
        pool.score(n=facts)
        scores.append(pool.column("n", "score"))
        learned.append(read_learned(pool.workspace, layout.learned("n")))
    assert all(np.array_equal(learned[0][name], learned[1][name]) for name in learned[0])
    assert len(learned[0]["uid"]) == 40
    for a, b in zip(*scores, strict=True):
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, abs=1e-6)
    assert [i for i, score in enumerate(scores[0]) if score is None] == [3, 7]


def test_the_same_shard_gives_the_same_bytes(tmp_path: Path) -> None:
    facts = {"type": "negclip", "model": "m", "batch_size": 16, "sample": 40}
    made = []
    for i, threads in enumerate((1, 2)):
        torch.set_num_threads(threads)
        pool = Pool(tmp_path / str(i), 60, 2)
        pool.score(n=facts)
        made.append(pool.bytes_of("n"))
    assert made[0] == made[1]


def test_temperature_comes_from_the_model(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 30, 2)
    facts = {"type": "negclip", "model": "m", "batch_size": 16}
    pool.score(own=facts, same={**facts, "temperature": 0.01}, other={**facts, "temperature": 0.07})
    assert pool.column("own", "score") == pool.column("same", "score")
    assert pool.column("own", "score") != pool.column("other", "score")
    path = layout.embedding_model("m")
    unknown = {k: v for k, v in pool.workspace.read_json(path).items() if k != "logit_scale"}
    pool.workspace.write_json(path, unknown)
    with pytest.raises(UserError, match=r"score\.scorers\.late\.temperature: the logit scale of 'm'"):
        pool.score(late=facts)


def test_generic_pairs_score_lower_than_their_similarity_says(tmp_path: Path) -> None:
    """The point of it: an image and a text that are near to everything lose."""
    pool = Pool(tmp_path, 200, 2, gaps=())
    pool.score(n={"type": "negclip", "model": "m", "batch_size": 200, "temperature": 0.05})
    generic = pool.image.astype(np.float64) @ pool.text.astype(np.float64).mean(axis=0)
    similarity = (pool.image.astype(np.float64) * pool.text.astype(np.float64)).sum(axis=1)
    penalty = similarity - np.array(pool.column("n", "score"))
    assert np.corrcoef(generic, penalty)[0, 1] > 0.5


def test_a_pool_without_embeddings_is_refused(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 4, 1, gaps=(0, 1, 2, 3))
    with pytest.raises(UserError, match=r"score\.scorers\.n: no sample has both embeddings of 'm'"):
        pool.score(n={"type": "negclip", "model": "m", "batch_size": 2})


def test_a_sample_below_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="`sample` must not be smaller than `batch_size`"):
        settings(n={"type": "negclip", "model": "m", "batch_size": 16, "sample": 15})


@pytest.mark.parametrize("size", [1, 5, 30, 59, 500])
def test_the_sample_is_the_smallest_hashes(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.score.vectors.sample.BLOCK", 8)
    pool = Pool(tmp_path, 60, 3)
    made = settings(n={"type": "negclip", "model": "m", "batch_size": 2})
    stage = LearnStage("n", made["n"], EMBED)
    found = draw(
        pool.shards, lambda shard: stage.open(pool.workspace, shard, {}), stage.scorer.vectors, size, seed=5
    )
    complete = [i for i in range(60) if i not in (3, 7)]
    words = uid_words(pa.array(pool.uids))
    hashes = hash_words(words, 5)
    expected = sorted(complete, key=lambda i: int(hashes[i]))[:size]
    assert np.array_equal(found.uids, words[expected])
    assert np.array_equal(found.vectors[0], pool.image[expected])
    assert np.array_equal(found.vectors[1], pool.text[expected])


def test_uids_are_found() -> None:
    rng = np.random.default_rng(0)
    among = rng.integers(0, 2**63, (50, 2)).astype(np.uint64)
    wanted = np.concatenate([among[::7], among[:2] + np.uint64(1)])
    assert find(wanted, among).tolist() == [*range(0, 50, 7), -1, -1]
    assert find(wanted, np.empty((0, 2), np.uint64)).tolist() == [-1] * len(wanted)


def test_hashes_are_mixed_well() -> None:
    uids = np.stack([np.zeros(4096, np.uint64), np.arange(4096, dtype=np.uint64)], axis=1)
    hashes = hash_words(uids, 0)
    bits = (hashes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.05
    assert len(set(hashes.tolist()) & set(hash_words(uids, 1).tolist())) == 0


def test_reading_goes_on_after_memory_was_given_back(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0), 100)
    np.save(tmp_path / "v.npy", vectors)
    mapped = map_npy(tmp_path / "v.npy", "v")
    parts = [block for _, block, _ in row_blocks(mapped, CPU, 7)]
    release_pages(mapped)
    assert np.array_equal(torch.cat(parts).numpy(), vectors.astype(np.float32))
    release_pages(vectors)
    assert np.array_equal(mapped, vectors)


def resident(path: Path) -> int:
    """Bytes of a mapped file that count as this process's memory."""
    found, total = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            found = line.endswith(str(path))
        elif found and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux what is resident")
def test_a_pass_over_a_shard_does_not_stay_in_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", unit(np.random.default_rng(0), 20_000, 64))
    mapped = map_npy(tmp_path / "v.npy", "v")
    assert np.isfinite(mapped).all()
    assert resident(tmp_path / "v.npy") > 2_000_000, "a plain pass does"
    most = max(resident(tmp_path / "v.npy") for _ in row_blocks(mapped, CPU, 1000))
    assert most < 300_000
    assert resident(tmp_path / "v.npy") == 0


def test_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.device_of("auto", "p").type == "cpu"
    with pytest.raises(UserError, match=r"score\.scorers\.n\.device"):
        devices.device_of("cuda", "score.scorers.n")
