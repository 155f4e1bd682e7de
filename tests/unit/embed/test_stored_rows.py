"""Sorting and joining of stored rows against slow oracles; sources on other stores; sources beside images."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.clip.vectors import STORED, fits
from curate.config.loading import check, load_config
from curate.config.models import ModelSettings
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.uid import SUBSET_DTYPE, shard_of
from curate.dataset.workspace import Workspace
from curate.embed.stored.rows import fill, join, record_dtype, shard_bounds, sorted_order
from curate.errors import ConfigError
from curate.samples.columns import columns_of, read_samples
from tests.unit.embed.clip_shards import FakeDownload, image_table, run_stage, tar_of
from tests.unit.embed.stored_pools import (
    rows_of,
    settings,
    take,
    taken,
    write_clip_retrieval,
    write_datacomp,
    write_pool,
)

DIM = 3
BOTH = ("image", "text")
GOOD = {0: [1.0, 0.0, 0.0], 1: [0.0, 2.0, 0.0], 2: [0.0, 1.0, 1.0]}
BAD = {3: [0.0, 0.0, 0.0], 4: [np.nan, 1.0, 0.0], 5: [np.inf, 0.0, 1.0]}
VECTORS = {**GOOD, **BAD}
uids = st.integers(0, 12).map(lambda n: n * 0x15555555555555555555555555555555 % (1 << 128))
stored_rows = st.lists(st.tuples(uids, st.sampled_from(sorted(VECTORS)), st.sampled_from(sorted(VECTORS))))


def records_of(rows: list[tuple[int, int, int]]) -> np.ndarray:
    records = np.empty(len(rows), record_dtype(DIM, BOTH))
    keys = halves_of([uid for uid, _, _ in rows])
    found = {
        kind: np.array([VECTORS[row[1 + i]] for row in rows], np.float32).reshape(-1, DIM)
        for i, kind in enumerate(BOTH)
    }
    fill(records, keys, found)
    return records


def halves_of(numbers: list[int]) -> np.ndarray:
    out = np.zeros(len(numbers), SUBSET_DTYPE)
    out["f0"] = [n >> 64 for n in numbers]
    out["f1"] = [n & (2**64 - 1) for n in numbers]
    return out


def unit(vector: list[float]) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


@given(st.sets(uids), stored_rows)
def test_join_is_a_dictionary(pool: set[int], rows: list[tuple[int, int, int]]) -> None:
    samples = sorted(pool)
    joined = join(halves_of(samples), records_of(rows), DIM)
    counts = Counter(uid for uid, _, _ in rows if uid in pool)
    assert joined.counts["unused"] == sum(uid not in pool for uid, _, _ in rows)
    assert joined.counts["repeated"] == sum(n - 1 for n in counts.values())
    for i, uid in enumerate(samples):
        mine = [(a, b) for u, a, b in rows if u == uid]
        good = [(a, b) for a, b in mine if a in GOOD and b in GOOD]
        image, text = joined.vectors["image"][i], joined.vectors["text"][i]
        if not mine:
            assert joined.reasons[i] == "not_stored"
        elif not good:
            assert joined.reasons[i] == "bad_vector"
            assert np.isnan(image).all() == (mine[0][0] in BAD)
            assert np.isnan(text).all() == (mine[0][1] in BAD)
        elif len(set(good)) > 1:
            assert joined.reasons[i] == "conflicting_vectors"
            assert np.isnan(image).all()
            assert np.isnan(text).all()
        else:
            assert joined.reasons[i] is None
            a, b = (unit(GOOD[kind]) for kind in good[0])
            np.testing.assert_allclose(image, a, atol=1e-3)
            np.testing.assert_allclose(text, b, atol=1e-3)
            assert joined.similarity[i] == pytest.approx(float(a @ b), abs=1e-6)
        assert np.isnan(joined.similarity[i]) == (joined.reasons[i] is not None)


@given(st.lists(uids), st.integers(1, 40))
def test_the_bounds_are_where_shards_begin(numbers: list[int], shards: int) -> None:
    records = np.empty(len(numbers), record_dtype(DIM, ("image",)))
    keys = halves_of(numbers)
    records["f0"], records["f1"] = keys["f0"], keys["f1"]
    order = sorted_order(records)
    assert [numbers[i] for i in order] == sorted(numbers)
    assert all(a < b for a, b in itertools.pairwise(order) if numbers[a] == numbers[b])
    bounds = shard_bounds(records["f0"][order], shards)
    assert len(bounds) == shards + 1
    for shard in range(shards):
        inside = [numbers[i] for i in order[bounds[shard] : bounds[shard + 1]]]
        assert all(shard_of(f"{uid:032x}", shards) == shard for uid in inside)
    assert bounds[-1] == len(numbers)


@pytest.mark.parametrize("kind", ["clip_retrieval", "datacomp"])
def test_a_source_and_a_workspace_on_another_store(tmp_path: Path, kind: str) -> None:
    rows = rows_of(80)
    local = tmp_path / "source"
    (write_clip_retrieval if kind == "clip_retrieval" else write_datacomp)(local, rows)
    fs = fsspec.filesystem("memory")
    root = f"memory://{tmp_path.name}"
    fs.put(f"{local}/", f"{root}/source/", recursive=True)
    workspace = Workspace(f"{root}/work")
    write_pool(workspace, rows)
    take(workspace, settings(f"{root}/source", format=kind))
    table = workspace.read_table(Family.embeddings("b32").path("00001"))
    cosines = {r.uid: r.cosine("b32") for r in rows}
    assert table.num_rows > 10
    for uid, similarity in zip(*(table[name].to_pylist() for name in ("uid", "similarity")), strict=True):
        assert similarity == pytest.approx(cosines[uid], abs=2e-7)


def test_beside_images_the_samples_are_those_that_have_one(tmp_path: Path) -> None:
    rows = sorted(rows_of(60), key=lambda r: r.uid)
    workspace = Workspace(str(tmp_path / "work"))
    failed = [3, 4, 50]
    table = image_table([(r.uid, r.text, r.url) for r in rows], failed)
    run_stage(workspace, FakeDownload({"00000": (table, tar_of([]))}))
    workspace.write_json(layout.DATASET, {"shards": 1, "shard_size": 60, "candidates": 60})
    write_clip_retrieval(tmp_path / "embeddings", rows)
    take(workspace, settings(tmp_path / "embeddings"))
    found = taken(workspace, shards=1)
    assert found.table["uid"].to_pylist() == [r.uid for i, r in enumerate(rows) if i not in failed]
    assert found.table["reason"].null_count == 57
    columns = columns_of(workspace, "00000", ("b32",), ())
    samples = read_samples(workspace, "00000", ["similarity", "text"], columns)
    assert samples["text"].to_pylist() == found.table["caption"].to_pylist()


def test_the_weights_of_ready_vectors_are_not_known_but_their_length_is() -> None:
    facts = {"checkpoint": STORED, "dim": 512}
    assert fits("abc", 512, facts)
    assert not fits("abc", 768, facts)
    assert fits("abc", 512, {"checkpoint": "abc", "dim": 512})
    assert not fits("abc", 512, {"checkpoint": "abd", "dim": 512})


def model(**facts: object) -> ModelSettings:
    config = check({"embed": {"models": {"m": {"model": "ViT-B-32", **facts}}}})
    return config.embed.models["m"]


SOURCE = {"source": "a", "format": "clip_retrieval"}


def test_facts_are_those_of_what_is_read() -> None:
    computed = model().facts()
    assert not set(computed) & {"source", "format", "arrays", "uid_column", "url_column", "text_column"}
    taken_from = model(**SOURCE).facts()
    assert (
        taken_from == model(**SOURCE, precision="fp16", batch_size=3, storage_options={"anon": True}).facts()
    )
    assert taken_from == model(**{**SOURCE, "source": ["b"]}).facts()
    assert taken_from != model(**SOURCE, uid_column="id").facts()
    assert taken_from != model(**SOURCE, pretrained="openai").facts()
    assert hash(model(**SOURCE, storage_options={"anon": True})) != hash(model(**SOURCE))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"format": "datacomp"}, "needs `source`"),
        ({"uid_column": "x"}, "needs `source`"),
        ({"source": "a"}, "`source` needs `format`"),
        ({"source": "a", "format": "datacomp"}, "needs `arrays`"),
        ({**SOURCE, "arrays": "b32"}, "goes with `format: datacomp`"),
        ({**SOURCE, "uid_column": "x", "url_column": "y"}, "not both"),
        ({**SOURCE, "format": "npy"}, "clip_retrieval"),
    ],
)
def test_settings_that_do_not_go_together(facts: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        model(**facts)
    assert "embed.models.m" in str(caught.value)


def test_images_can_be_switched_off_and_on_again(tmp_path: Path) -> None:
    (tmp_path / "with.yaml").write_text("download: {threads: 3}\n")
    (tmp_path / "without.yaml").write_text("extends: with.yaml\ndownload: null\n")
    (tmp_path / "again.yaml").write_text("extends: without.yaml\ndownload: {threads: 5}\n")
    (tmp_path / "same.yaml").write_text("extends: without.yaml\nworkspace: elsewhere\n")
    assert load_config(str(tmp_path / "without.yaml")).download is None
    assert load_config(str(tmp_path / "same.yaml")).download is None
    again = load_config(str(tmp_path / "again.yaml")).download
    assert again is not None
    assert again.threads == 5
    assert load_config(str(tmp_path / "with.yaml"), ["download=null"]).download is None
    assert load_config(None).download is not None


def test_models_that_need_images_are_refused_without() -> None:
    with pytest.raises(ConfigError, match=r"embed\.models\.m: there are no images .* give `source`"):
        check({"download": None, "embed": {"models": {"m": {"model": "demo"}}}})
    assert check({"download": None, "embed": {"models": {"m": {"model": "demo", **SOURCE}}}}).download is None
