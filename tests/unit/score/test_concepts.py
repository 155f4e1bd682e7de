from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.errors import ConfigError, UserError
from curate.score.contract import Shard, make_scorer
from curate.score.kinds.concepts import Concepts
from tests.unit.score.vector_shards import WEIGHTS, Pool, settings, unit

NAMES = ["red panda", "tree frog", "violin"]
TABLE = unit(np.random.default_rng(4), 3).astype(np.float32)


def scorer(**facts: Any) -> Concepts:
    made = make_scorer("c", settings(c={"type": "concepts", "model": "m", **facts})["c"])
    assert isinstance(made, Concepts)
    return made


def scored(made: Concepts, vectors: np.ndarray, asked: list[str] | None = None) -> dict[str, list[Any]]:
    """Score vectors with an encoder that knows three names."""

    def encode(alias: str, texts: tuple[str, ...]) -> tuple[np.ndarray, float]:
        (asked if asked is not None else []).extend(texts)
        return TABLE[: len(texts)], 100.0

    dim = vectors.shape[1]
    samples = pa.table({"uid": [f"{i:032x}" for i in range(len(vectors))]})
    about = {"m": {"dim": dim, "weights": WEIGHTS}}
    found = made.score(Shard("0", samples, {made.vectors[0]: vectors}, about, encode))
    return {name: column.to_pylist() for name, column in found.items()}


def test_the_nearest_concept_by_its_definition() -> None:
    vectors = unit(np.random.default_rng(5), 30)
    vectors[6] = np.nan
    asked: list[str] = []
    found = scored(scorer(concepts=NAMES), vectors, asked)
    assert asked == NAMES, "CiT uses no template"
    for i, vector in enumerate(vectors.astype(np.float64)):
        if i == 6:
            assert [found[name][i] for name in ("score", "index", "concept")] == [None, None, None]
            continue
        cosines = [float(vector @ (t / np.linalg.norm(t))) for t in TABLE.astype(np.float64)]
        assert found["score"][i] == pytest.approx(max(cosines), abs=1e-6)
        assert found["index"][i] == int(np.argmax(cosines))
        assert found["concept"][i] == NAMES[int(np.argmax(cosines))]


def test_captions_are_compared_unless_images_are_asked_for() -> None:
    assert scorer(concepts=NAMES).vectors == (("m", "text"),)
    assert scorer(concepts=NAMES, modality="image").vectors == (("m", "image"),)


def test_a_file_of_concepts_and_a_template(tmp_path: Path) -> None:
    path = tmp_path / "concepts.txt"
    path.write_text("\ufeffred panda\n\n  tree frog \r\nviolin\n", encoding="utf-8")
    vectors = unit(np.random.default_rng(5), 5)
    asked: list[str] = []
    made = scorer(file=str(path), template="a photo of a {}")
    assert scored(made, vectors, asked)["concept"] == scored(scorer(concepts=NAMES), vectors)["concept"]
    assert asked == [f"a photo of a {name}" for name in NAMES]
    before = made.facts
    path.write_text("violin\n")
    assert scorer(file=str(path), template="a photo of a {}").facts != before
    assert str(path) not in str(before)


def test_stored_vectors_with_and_without_names(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", TABLE * 5)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    pool = Pool(tmp_path / "w", 20, 2)
    facts = {"type": "concepts", "model": "m", "vectors": str(tmp_path / "v.npy")}
    pool.score(a=facts, b={**facts, "file": str(tmp_path / "names.txt")})
    expected = scored(scorer(concepts=NAMES), pool.text)
    assert pool.column("a", "score") == pytest.approx(expected["score"], abs=1e-6)
    assert pool.column("a", "index") == pool.column("b", "index") == expected["index"]
    assert pool.column("b", "concept") == expected["concept"]
    assert pool.column("a", "score").count(None) == 0, "row 3 and 7 lack an image only"


def test_names_that_do_not_fit_the_vectors_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", TABLE)
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    pool = Pool(tmp_path / "w", 20, 2)
    facts = {"vectors": str(tmp_path / "v.npy"), "file": str(tmp_path / "names.txt")}
    with pytest.raises(UserError, match=r"score\.scorers\.a: `file` has 2 concepts, `vectors` 3 rows"):
        pool.score(a={"type": "concepts", "model": "m", **facts})


def test_files_without_a_concept_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    with pytest.raises(UserError, match=r"score\.scorers\.c\.file: .*no such file"):
        scorer(file=str(path))
    path.write_text(" \n\n")
    with pytest.raises(UserError, match=r"score\.scorers\.c\.file: .*holds no concept"):
        scorer(file=str(path))
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="is not UTF-8"):
        scorer(file=str(path))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "needs `concepts`"),
        ({"concepts": ["a"], "file": "x"}, "not both"),
        ({"concepts": ["a", " "]}, "a concept is empty"),
        ({"concepts": ["a"], "template": "a photo"}, "`template` needs a {}"),
    ],
)
def test_settings_that_cannot_be_meant(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        scorer(**facts)


def test_real_captions_find_their_class(fixtures_dir: Path, tmp_path: Path) -> None:
    """Nine product captions by OpenAI's ViT-B/32 against the 1,203 class names of LVIS."""
    folder = fixtures_dir / "embeddings"
    classes = json.loads((folder / "detic_text" / "lvis_v1_train_cat_info.json").read_text())
    (tmp_path / "names.txt").write_text("\n".join(c["name"] for c in classes))
    made = scorer(
        vectors=str(folder / "detic_text" / "lvis_v1_clip_a+cname.npy"), file=str(tmp_path / "names.txt")
    )
    output = folder / "clip_retrieval_output" / "embeddings"
    captions = np.load(output / "text_emb" / "text_emb_0.npy")
    found = scored(made, captions)
    assert found["concept"] == [
        *("shirt", "halter_top", "shirt", "shirt", "flannel"),
        *("sweat_pants", "dress", "tartan", "swimsuit"),
    ]
    assert min(found["score"]) > 0.55, "CiT's threshold"
