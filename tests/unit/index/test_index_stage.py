from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from curate.config.models import IndexSettings
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.uid import from_halves
from curate.dataset.workspace import Workspace
from curate.embed.stage import EmbedStage
from curate.errors import DataError, UserError
from curate.index.build import new_index, search
from curate.index.search import Searcher, indices
from curate.index.stage import IndexStage
from curate.index.types import index_type
from curate.inspect.query import run_query
from tests.unit.embed.clip_shards import dataset, jpeg, run_stage, samples, save_clip, settings_of
from tests.unit.index.index_pool import FakeFilter

ROWS, SHARDS = 60, 4


def kept(places: Sequence[int]) -> FakeFilter:
    uids = [uid for uid, _, _ in samples(ROWS)]
    return FakeFilter("e", uids, [uids[i] for i in places], SHARDS)


def made(folder: Path, tiny: Path, keep: Sequence[int] = range(0, ROWS, 2), **options: object) -> Workspace:
    space = Workspace(str(folder))
    dataset(space, samples(ROWS), SHARDS)
    run_stage(space, EmbedStage("m", settings_of(tiny)))
    run_stage(space, kept(keep))
    run_stage(space, IndexStage("e", "m", IndexSettings(**options)))  # type: ignore[arg-type]
    return space


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Workspace:
    return made(tmp_path_factory.mktemp("w"), tiny)


def test_the_map_of_rows_is_the_selection(space: Workspace) -> None:
    uids = from_halves(np.load(Path(space.location(layout.index_file("e", "m", "uids.npy"))))).to_pylist()
    assert uids == [uid for i, (uid, _, _) in enumerate(samples(ROWS)) if i % 2 == 0]
    assert indices(space) == [("e", "m")]


def test_a_kept_sample_finds_itself_and_a_dropped_one_its_neighbours(space: Workspace, tiny: Path) -> None:
    rows = samples(ROWS)
    with Searcher(space, "e", "m", settings_of(tiny)) as searcher:
        hit, *_ = searcher.by_uid(rows[0][0], 3)
        assert (hit.uid, hit.text, hit.url) == rows[0]
        assert hit.similarity == pytest.approx(1, abs=1e-6)
        dropped = searcher.by_uid(rows[1][0], 3)
        assert rows[1][0] not in {h.uid for h in dropped}
        similarities = [h.similarity for h in dropped]
        assert similarities == sorted(similarities, reverse=True)


def test_search_by_text_and_image_is_exact_search_when_flat(
    space: Workspace, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "q.jpg").write_bytes(jpeg(5))
    stored = {}
    for i in range(SHARDS):
        shard = layout.shard_name(i, SHARDS)
        table = space.read_table(Family.embeddings("m").path(shard))
        array = np.load(Path(space.location(layout.embedding("m", "image", shard)))).astype(np.float32)
        stored |= dict(zip(table["uid"].to_pylist(), array, strict=True))
    with Searcher(space, "e", "m", settings_of(tiny)) as searcher:
        kept = from_halves(np.asarray(searcher.uids)).to_pylist()
        for hits, query in [
            (searcher.by_text("a picture of thing 4", 5), searcher.text_vector("a picture of thing 4")),
            (searcher.by_image(tmp_path / "q.jpg", 5), searcher.image_vector(tmp_path / "q.jpg")),
        ]:
            exact = sorted(kept, key=lambda u: -float(stored[u] @ query))[:5]
            assert {h.uid for h in hits} == set(exact)


@pytest.mark.parametrize("kind", ["auto", "IVF2,Flat"])
def test_two_builds_give_the_same_bytes(tmp_path: Path, tiny: Path, kind: str) -> None:
    digests = []
    for name in "ab":
        space = made(tmp_path / name, tiny, type=kind)
        digests.append(sorted((p, r.digest) for p, r in RecordStore(space).outputs("index/e_m").items()))
    assert digests[0] == digests[1]


def test_mistakes_are_named(space: Workspace, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no index of experiment 'x'.*there are: e/m"):
        Searcher(space, "x", "m")
    with Searcher(space, "e", "m", settings_of(tiny)) as searcher:
        for call, words in [
            (lambda: searcher.by_uid("f" * 32), "not embedded"),
            (lambda: searcher.by_uid("xyz"), "not a uid"),
            (lambda: searcher.by_text("  "), "empty"),
            (lambda: searcher.by_image(tmp_path / "none.jpg"), "cannot read"),
            (lambda: searcher.by_image(b"junk"), "not an image"),
            (lambda: searcher.by_text("a", modality="audio"), "no modality 'audio'"),
            (lambda: searcher.by_vector(np.ones(7, np.float32)), "needs 32 finite numbers"),
        ]:
            with pytest.raises(UserError, match=words):
                call()


def test_another_models_query_is_refused(tmp_path: Path, tiny: Path) -> None:
    space = made(tmp_path / "w", tiny)
    other = save_clip(tmp_path / "other", seed=9)
    with (
        Searcher(space, "e", "m", settings_of(other)) as searcher,
        pytest.raises(UserError, match="not those that the index was built with"),
    ):
        searcher.by_text("a picture")
    run_stage(space, EmbedStage("m", settings_of(other)))
    with pytest.raises(UserError, match="built with another model"):
        Searcher(space, "e", "m")


def test_a_damaged_index_is_an_error(tmp_path: Path, tiny: Path) -> None:
    space = made(tmp_path / "w", tiny)
    path = layout.index_file("e", "m", "image.index")
    space.write_bytes(path, space.read_bytes(path)[:100])
    with (
        Searcher(space, "e", "m", settings_of(tiny)) as searcher,
        pytest.raises(DataError, match=r"image\.index"),
    ):
        searcher.by_text("a picture")


def test_an_empty_selection(tmp_path: Path, tiny: Path) -> None:
    space = made(tmp_path / "w", tiny, keep=[])
    with Searcher(space, "e", "m", settings_of(tiny)) as searcher:
        assert searcher.by_text("a picture") == []


def test_types_by_size() -> None:
    assert index_type(9_999, 512, 200_000) == "Flat"
    assert index_type(10_000, 512, 200_000) == "IVF256,Flat"
    assert index_type(100_000, 512, 200_000) == "IVF1024,Flat"
    assert index_type(5_000_000, 512, 200_000).startswith("OPQ64_")
    assert "IVF4096," in index_type(5_000_000, 512, 200_000), (
        "no more lists than the training points can fill"
    )


def test_recall_on_real_vectors(fixtures_dir: Path) -> None:
    """5,000 real SIFT vectors, normalised: IVF64 at nprobe 8 finds most of the ten nearest."""
    import faiss

    vectors = np.loadtxt(fixtures_dir / "knn/sift-dataset-5k.tsv", dtype=np.float32, delimiter="\t")
    assert len(vectors) == 5000
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries, base = vectors[:100], vectors[100:]
    index = new_index("IVF64,Flat", base.shape[1])
    index.train(base)
    index.add(base)
    faiss.extract_index_ivf(index).nprobe = 8
    _, found = search(index, queries, 10)
    exact = np.argsort(-(queries @ base.T), axis=1)[:, :10]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)])
    assert recall > 0.8


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_model_of_one_modality_is_indexed_and_queried_as_far_as_it_goes(
    tmp_path: Path, tiny: Path, kind: str
) -> None:
    space = Workspace(str(tmp_path))
    dataset(space, samples(ROWS), SHARDS)
    run_stage(space, EmbedStage("m", settings_of(tiny, modalities=[kind])))
    run_stage(space, kept(range(ROWS)))
    run_stage(space, IndexStage("e", "m", IndexSettings(type="IVF2,Flat"), settings_of(tiny)))
    facts = space.read_json(layout.index_file("e", "m", "index.json"))
    assert list(facts["indices"]) == [kind]
    recall = facts["indices"][kind]["recall"]
    assert recall[kind]["source"] == {"image": "images", "text": "captions"}[kind]
    assert facts["not_measured"] == ({} if kind == "image" else {"image": "no images are embedded as 'm'"})
    assert recall["text"]["source"] == {"image": "prompts", "text": "captions"}[kind]
    with Searcher(space, "e", "m", settings_of(tiny)) as searcher:
        assert len(searcher.by_text("a picture of thing 4", 3, kind)) == 3
    assert run_query(space, "SELECT count(*) AS n FROM samples")["n"].to_pylist() == [ROWS]
    other = {"image": "text", "text": "image"}[kind]
    with pytest.raises(UserError, match=rf"{other} of 'm' is not embedded, only {kind}"):
        run_stage(space, IndexStage("e", "m", IndexSettings(modalities=(other,))))
