"""Recall is measured with queries of every kind, and each kind visits as many lists as it needs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.clip.vectors import Vectors
from curate.config.models import IndexSettings, ModelSettings
from curate.dataset import layout
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.plan import make_plan
from curate.errors import UserError
from curate.index import recall, stage
from curate.index.build import Built, build, lists_of, new_index, search
from curate.index.prompts import prompts
from curate.index.recall import Exact
from curate.index.search import Searcher
from curate.index.stage import IndexStage
from tests.unit.embed.clip_shards import run_stage
from tests.unit.index.index_pool import Cloud, cloud, exact_recall, pool_of, unit

COUNT, LISTS = 4_000, 64
DEMO = ModelSettings(model="demo", device="cpu")


def drawn() -> Cloud:
    rng = np.random.default_rng(1)
    texts = rng.standard_normal((2_000, 40)) @ rng.standard_normal((40, 128)) + 6 * rng.standard_normal(128)
    return cloud(unit(texts), rng.standard_normal(128).astype(np.float32), COUNT)


def real(fixtures: Path) -> Cloud:
    """Class names by OpenAI's ViT-B/32; images around them, on the side where its images are."""
    folder = fixtures / "embeddings"
    texts = np.concatenate([np.load(p) for p in sorted((folder / "detic_text").glob("*.npy"))])
    images = np.load(folder / "clip_retrieval_output/embeddings/img_emb/img_emb_0.npy")
    assert texts.shape == (2_148, 512)
    return cloud(texts.astype(np.float32), images.astype(np.float32).mean(0), COUNT)


@pytest.fixture(scope="module", params=["drawn", "real"])
def space_of_clip(request: pytest.FixtureRequest) -> Cloud:
    return drawn() if request.param == "drawn" else real(request.getfixturevalue("fixtures_dir"))


def halves_of(texts: Vectors) -> tuple[Vectors, Vectors]:
    """To tune with, and to check with."""
    order = np.random.default_rng(2).permutation(len(texts))
    return texts[order[:250]], texts[order[250:500]]


def none(queries: Vectors) -> npt.NDArray[np.int64]:
    return np.full(len(queries), -1, np.int64)


def test_lists_for_image_queries_are_too_few_for_texts(space_of_clip: Cloud) -> None:
    images = space_of_clip.images
    tuned, others = halves_of(space_of_clip.texts)
    rows = np.arange(0, COUNT, 16)
    training = np.delete(images, rows, axis=0)

    def asked() -> dict[Any, Exact]:
        return {"image": Exact(images[rows], rows), "text": Exact(tuned, none(tuned))}

    def with_lists(nprobe: int) -> float:
        lists_of(built.index).nprobe = nprobe
        return exact_recall(search(built.index, others, 10)[1], others, images)

    factory = f"IVF{LISTS},Flat"
    index = new_index(factory, images.shape[1])
    built = build(index, factory, training, [(0, images[:900]), (900, images[900:])], asked(), 0.95)
    assert built.nprobe is not None
    assert min(built.recall["image"], built.recall["text"]) >= 0.95
    assert with_lists(built.nprobe["image"]) < 0.75, "what image queries need misses a quarter"
    assert with_lists(built.nprobe["text"]) > 0.93
    assert built.nprobe["text"] > 2 * built.nprobe["image"]
    lists_of(index).nprobe = built.nprobe["image"]
    found = search(index, images[rows], 11)[1]
    assert exact_recall(found, images[rows], images, rows) == pytest.approx(built.recall["image"], abs=1e-3)
    again = build(new_index(factory, images.shape[1]), factory, training, [(0, images)], asked(), 0.95)
    assert (again.nprobe, again.recall) == (built.nprobe, built.recall)


def test_the_target_is_met_with_all_lists_if_need_be() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((500, 16)))
    queries = unit(rng.standard_normal((50, 16)))

    def built(target: float) -> Built:
        exact = {"text": Exact(queries, none(queries))}
        return build(new_index("IVF24,Flat", 16), "IVF24,Flat", vectors, [(0, vectors)], exact, target)

    whole, some = built(1.0), built(0.6)
    assert whole.lists == 24
    assert whole.recall == {"text": 1.0}
    assert 0.6 <= some.recall["text"] < 1
    assert whole.nprobe is not None
    assert some.nprobe is not None
    assert some.nprobe["text"] < whole.nprobe["text"]
    assert whole.nprobe["image"] == 24, "not measured: all lists"
    assert lists_of(some.index).nprobe == 24, "for whoever does not know what asks"


@given(st.data())
def test_exact_answers_grow_in_any_portions(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    vectors = unit(rng.integers(-2, 3, (data.draw(st.integers(1, 90)), 3)) + np.array([0.1, 0.2, 0.3]))
    queries = unit(rng.standard_normal((4, 3)))
    own = rng.integers(-1, len(vectors), 4)
    found = np.stack([rng.permutation(len(vectors))[:6] for _ in queries]) if len(vectors) > 5 else None
    cuts = sorted(data.draw(st.lists(st.integers(0, len(vectors)), max_size=3)))
    whole, parts = Exact(queries, own), Exact(queries, own)
    whole.add(0, vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "CHUNK", data.draw(st.integers(1, 20)))
        for start, end in zip([0, *cuts], [*cuts, len(vectors)], strict=True):
            parts.add(start, vectors[start:end])
    if found is not None:
        assert parts.recall(found, 5) == whole.recall(found, 5)
        for q in range(4):
            scores = vectors @ queries[q]
            if own[q] >= 0:
                scores[own[q]] = -np.inf
            limit = np.sort(scores)[::-1][4] - 1e-6
            given_rows = [r for r in found[q].tolist() if r != own[q]][:5]
            hits = sum(bool(scores[r] >= limit) for r in given_rows)
            one = Exact(queries[q : q + 1], own[q : q + 1])
            one.add(0, vectors)
            assert one.recall(found[q : q + 1], 5) == pytest.approx(min(5, hits) / 5)


def test_prompts_are_many_and_varied() -> None:
    found = prompts()
    assert len(set(found)) == len(found) == 512
    words = [len(text.split()) for text in found]
    assert min(words) == 1
    assert max(words) >= 8
    assert len({word for text in found for word in text.split()}) > 180
    assert found == prompts()


def facts_of(space: Workspace) -> dict[str, Any]:
    facts: dict[str, Any] = space.read_json(layout.index_file("e", "m", "index.json"))
    return facts


def tower_of(monkeypatch: pytest.MonkeyPatch, texts: Vectors) -> None:
    """In place of a model: texts get these vectors, whatever they are."""
    clip = SimpleNamespace(encode_texts=lambda asked: texts[: len(asked)])
    monkeypatch.setattr(stage, "load_fitting", lambda *_: clip)


def test_a_pool_without_texts_is_searched_by_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space_of_clip: Cloud
) -> None:
    images = space_of_clip.images
    tuned, others = halves_of(space_of_clip.texts)
    space = pool_of(tmp_path, {"image": images})
    tower_of(monkeypatch, tuned)
    run_stage(space, IndexStage("e", "m", IndexSettings(type=f"IVF{LISTS},Flat")))
    facts = facts_of(space)
    assert facts["not_measured"] == {}
    about = facts["indices"]["image"]
    assert {kind: recall["source"] for kind, recall in about["recall"].items()} == {
        "text": "prompts",
        "image": "images",
    }
    assert all(r["recall"] >= 0.95 and r["reached"] for r in about["recall"].values())
    stored = unit(images.astype(np.float16))
    with Searcher(space, "e", "m") as searcher:
        found = {kind: searcher.search(others, 10, kind=kind)[1] for kind in ("text", "image", None)}
        assert searcher.caveat("text") is searcher.caveat("image") is None
    assert exact_recall(found["text"], others, stored) > 0.93
    assert exact_recall(found["image"], others, stored) < 0.75
    assert (found[None] == found["text"]).all(), "of an unknown kind: as the harder kind"
    import faiss

    index = faiss.read_index(space.location(layout.index_file("e", "m", "image.index")))
    assert exact_recall(search(index, others, 10)[1], others, stored) > 0.93, "without index.json, too"


@pytest.mark.parametrize("model", ["no-such-model", "demo"])
def test_texts_that_cannot_be_had_are_not_claimed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    """Of a model that is not here, or that has another number of dimensions."""
    space = pool_of(tmp_path, {"image": unit(drawn().images[:, :96])}, model)
    run_stage(space, IndexStage("e", "m", IndexSettings(type=f"IVF{LISTS},Flat")))
    facts = facts_of(space)
    assert list(facts["indices"]["image"]["recall"]) == ["image"]
    why = facts["not_measured"]["text"]
    assert "text tower cannot be loaded" in why
    assert {"no-such-model": "no model named", "demo": "the weights of 'demo' are not those"}[model] in why
    with Searcher(space, "e", "m") as searcher:
        said = searcher.caveat("text")
        assert said is not None
        assert said.startswith("what text queries find in this index was not measured (no texts are embedded")
        assert said.endswith("; 64 of 64 lists are visited")
        assert searcher.caveat("image") is None
    assert f"index/e_m, image.index: {said}" in caplog.text
    for queries in ("prompts", str(tmp_path / "texts.txt")):
        (tmp_path / "texts.txt").write_text("a dog\n")
        insisting = IndexStage("e", "m", IndexSettings(type="IVF8,Flat", queries=queries))
        with pytest.raises(UserError, match=r"^index\.queries: .*'"):
            run_stage(space, insisting)


def test_a_target_that_is_missed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = drawn()
    texts = pair.texts[np.arange(COUNT) % len(pair.texts)]
    space = pool_of(tmp_path, {"image": pair.images, "text": texts})
    settings = IndexSettings(type="IVF16,PQ8x4", recall=0.99, modalities=("image",))
    run_stage(space, IndexStage("e", "m", settings))
    found = facts_of(space)["indices"]["image"]["recall"]
    for kind in ("text", "image"):
        assert found[kind]["recall"] < found[kind]["target"] == 0.99
        assert found[kind]["reached"] is False
        assert f"{kind} queries find {found[kind]['recall']:.1%} of the true 10 nearest" in caplog.text
        with Searcher(space, "e", "m") as searcher:
            assert "not 99.0% (index.recall)" in (searcher.caveat(kind) or "")
            cosines, _ = searcher.search(pair.images[:200], 10, kind=kind)
            assert np.abs(cosines).max() <= 1
    assert found["text"]["source"] == "captions"


def test_an_exact_index_needs_no_queries(tmp_path: Path) -> None:
    space = pool_of(tmp_path, {"image": drawn().images[:300]})
    run_stage(space, IndexStage("e", "m", IndexSettings()))
    facts = facts_of(space)
    assert facts["not_measured"] == {}
    assert facts["indices"]["image"]["nprobe"] is None
    for found in facts["indices"]["image"]["recall"].values():
        assert (found["recall"], found["queries"], found["source"]) == (1.0, 0, "exact")
    with Searcher(space, "e", "m") as searcher:
        assert searcher.caveat("text") is None


def test_texts_of_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    space = pool_of(tmp_path / "w", {"image": unit(rng.standard_normal((400, 128)))}, "demo")
    path = tmp_path / "texts.txt"

    def index() -> IndexStage:
        return IndexStage("e", "m", IndexSettings(type="IVF8,Flat", queries=str(path)), DEMO)

    for content, why in (
        (None, "no such file"),
        (b"\n \n", "no text in it"),
        (b"a dog\n\xff", "not UTF-8"),
    ):
        if content is not None:
            path.write_bytes(content)
        for call in (index().check, lambda space: list(index().units(space))):
            with pytest.raises(UserError, match=rf"^index\.queries: {path}: {why}"):
                call(space)
    path.write_text("\ufeffa dog\n\na cat\r\n a dog \n")
    run_stage(space, index())
    found = facts_of(space)["indices"]["image"]["recall"]["text"]
    assert (found["source"], found["queries"]) == ("file", 2)
    assert not make_plan(index(), space, RecordStore(space)).jobs
    path.write_text("\n".join(f"{i} dogs" for i in range(2_000)))
    assert len(make_plan(index(), space, RecordStore(space)).jobs) == 1
    run_stage(space, index())
    assert facts_of(space)["indices"]["image"]["recall"]["text"]["queries"] == 512


def test_prompts_in_place_of_captions(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors = {m: unit(rng.standard_normal((400, 128))) for m in ("image", "text")}
    space = pool_of(tmp_path, vectors, "demo")
    outputs = []
    for queries in ("auto", "prompts", "prompts"):
        run_stage(space, IndexStage("e", "m", IndexSettings(type="IVF8,Flat", queries=queries), DEMO))
        found = facts_of(space)["indices"]["image"]["recall"]["text"]
        assert found["source"] == {"auto": "captions", "prompts": "prompts"}[queries]
        outputs.append({p: r.digest for p, r in RecordStore(space).outputs("index/e_m").items()})
        RecordStore(space).drop("index/e_m", {"index"})
    assert outputs[1] == outputs[2]


def test_an_index_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    space = pool_of(tmp_path, {"image": drawn().images[:50]})
    run_stage(space, IndexStage("e", "m", IndexSettings()))
    facts = facts_of(space)
    del facts["format"]
    facts["recall_asked_with"] = "image"
    space.write_json(layout.index_file("e", "m", "index.json"), facts)
    with pytest.raises(UserError, match=r"index\.json: an index as an earlier .*run `curate index` again$"):
        Searcher(space, "e", "m")


def test_cosines_are_cosines(tmp_path: Path) -> None:
    """Rounded to float16, half of these vectors are longer than 1.0004."""
    vectors = unit(np.random.default_rng(0).choice([-1.0, 1.0], (300, 236)))
    vectors[::2] = unit(vectors[::2] + np.random.default_rng(1).uniform(-0.02, 0.02, (150, 236)))
    stored = vectors.astype(np.float16).astype(np.float32)
    assert np.linalg.norm(stored, axis=1).max() > 1.0004
    space = pool_of(tmp_path, {"image": vectors})
    run_stage(space, IndexStage("e", "m", IndexSettings()))
    with Searcher(space, "e", "m") as searcher:
        cosines, rows = searcher.search(stored, 5)
        assert cosines.max() <= 1
        expected = np.einsum("ij,ikj->ik", unit(stored), unit(stored)[rows])
        np.testing.assert_allclose(cosines, expected, atol=1e-6)
        uid = searcher.hits(rows[0], cosines[0])[0].uid
        assert searcher.by_uid(uid, 1)[0].similarity == pytest.approx(1, abs=1e-6)


def test_the_first_digits_of_a_uid_will_do(tmp_path: Path) -> None:
    space = pool_of(tmp_path, {"image": drawn().images[:300]})
    run_stage(space, IndexStage("e", "m", IndexSettings()))
    with Searcher(space, "e", "m") as searcher:
        uid = searcher.by_vector(drawn().images[0], 1)[0].uid
        assert searcher.by_uid(uid[:12], 4) == searcher.by_uid(uid, 4)
        for given_uid, why in (
            ("0", r"several uids begin with '0': [0-9a-f]{32} and [0-9a-f]{32}; give more digits"),
            (f"{uid[:31]}{'0' if uid[31] != '0' else '1'}"[:31] + "z", "is not a uid"),
            (uid.upper(), "is not a uid"),
            ("", "is not a uid"),
            (f"{uid[:12]}{'0' if uid[12] != '0' else '1'}", "no uid begins with"),
            ("0" * 33, "is not a uid"),
        ):
            with pytest.raises(UserError, match=why):
                searcher.by_uid(given_uid)


def test_text_vectors_alone_have_no_image_to_look_for(tmp_path: Path) -> None:
    space = pool_of(tmp_path, {"text": drawn().texts[:100]})
    run_stage(space, IndexStage("e", "m", IndexSettings()))
    with Searcher(space, "e", "m") as searcher, pytest.raises(UserError, match="embeds no images"):
        searcher.by_uid("0" * 32, modality="text")
