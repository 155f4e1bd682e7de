"""The contract of a scorer, held against every kind there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.config.scorers.base import SCORERS
from curate.testing.pool import MODEL, make_pool
from curate.testing.scorers import ScorerContract

Keys = Mapping[str, Any]


def unit(rows: int, seed: int, dim: int = 128) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def saved(path: Path, **arrays: np.ndarray) -> str:
    """An npy file of the one array, or an npz file of several."""
    if path.suffix == ".npy":
        np.save(path, *arrays.values())
    else:
        np.savez(path, **arrays)
    return str(path)


def written(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


class TestText(ScorerContract):
    @pytest.fixture
    def settings(self) -> Keys:
        return {"type": "text"}


class TestImage(ScorerContract):
    @pytest.fixture
    def settings(self) -> Keys:
        return {"type": "image"}


class TestImageStats(ScorerContract):
    @pytest.fixture
    def settings(self) -> Keys:
        return {"type": "image_stats"}

    @pytest.fixture
    def changes(self) -> Mapping[str, Keys]:
        return {"size": {"size": 128}, "grey_tolerance": {"grey_tolerance": 9}}


class TestPerceptual(ScorerContract):
    @pytest.fixture
    def settings(self) -> Keys:
        return {"type": "perceptual", "hashes": ["phash", "dhash", "pdq"]}

    @pytest.fixture
    def changes(self) -> Mapping[str, Keys]:
        return {"hashes": {"hashes": ["phash"]}}


class TestZeroShot(ScorerContract):
    @pytest.fixture
    def settings(self) -> Keys:
        return {"type": "zero_shot", "model": MODEL, "positive": ["a dog", "a cat"], "negative": ["a car"]}

    @pytest.fixture
    def changes(self) -> Mapping[str, Keys]:
        return {
            "model": {"model": "other"},
            "positive": {"positive": ["a dog"]},
            "negative": {"negative": ["a bus"]},
            "prompts": {"positive": None, "negative": None, "prompts": "watermark"},
            "logit_scale": {"logit_scale": 50},
        }


class TestCategories(ScorerContract):
    @pytest.fixture
    def settings(self) -> Keys:
        categories = {"animal": ["a dog", "a cat"], "thing": ["a car"]}
        return {"type": "categories", "model": MODEL, "categories": categories, "probabilities": True}

    @pytest.fixture
    def changes(self) -> Mapping[str, Keys]:
        return {
            "model": {"model": "other"},
            "categories": {"categories": {"thing": ["a car"], "animal": ["a dog", "a cat"]}},
            "prompts": {"categories": None, "prompts": "data_types"},
            "probabilities": {"probabilities": False},
            "logit_scale": {"logit_scale": 50},
        }


class TestWords(ScorerContract):
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        folder = tmp_path / "lists"
        folder.mkdir()
        written(folder / "en", "dog\nbuy now\n")
        written(folder / "de.txt", "hund\nkatzen\n")
        return {"type": "words", "lists": str(folder), "language_column": "text_lang", "otherwise": "all"}

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        return {
            "lists": {"lists": {"en": written(tmp_path / "other", "dog\n")}},
            "languages": {"languages": ["en"]},
            "language_column": {"language_column": None},
            "otherwise": {"otherwise": "none"},
        }


class TestTextClassifier(ScorerContract):
    tolerance = 1e-6
    files_decide = ("revision",)

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        pytest.importorskip("transformers", reason="needs the extra `transformers`")
        from tests.unit.score.test_text_classifier import save_model

        folder = save_model(tmp_path / "bert", labels=3)
        return {"type": "text_classifier", "checkpoint": str(folder), "device": "cpu"}

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        from tests.unit.score.test_text_classifier import save_model

        return {
            "checkpoint": {"checkpoint": str(save_model(tmp_path / "other", labels=3, seed=1))},
            "preset": {"preset": "detoxify"},
            "max_length": {"max_length": 8},
            "activation": {"activation": "sigmoid"},
            "labels": {"labels": ["a", "b"]},
            "keep": {"keep": ["label_1"]},
        }


class TestImageClassifier(ScorerContract):
    tolerance = 1e-6

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        return {
            "type": "image_classifier",
            "architecture": "test_efficientnet",
            "file": tiny_weights(tmp_path / "tiny.safetensors", 0),
            "device": "cpu",
        }

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        return {
            "preset": {"preset": "laion_watermark", "architecture": None},
            "architecture": {"architecture": "test_efficientnet_gn"},
            "file": {"file": tiny_weights(tmp_path / "other.safetensors", 1)},
            "size": {"size": 32},
            "resize": {"resize": "squash"},
            "mean": {"mean": [0.1, 0.2, 0.3]},
            "std": {"std": [0.1, 0.2, 0.3]},
            "activation": {"activation": "sigmoid"},
            "labels": {"labels": ["a", "b"]},
            "keep": {"keep": ["class_1"]},
        }


def tiny_weights(path: Path, seed: int) -> str:
    """An architecture of timm with three outputs and random weights."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    save_file(timm.create_model("test_efficientnet", pretrained=False, num_classes=3).state_dict(), path)
    return str(path)


class TestHead(ScorerContract):
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        file = saved(tmp_path / "prompts.npy", a=unit(2, 0).astype(np.float32))
        return {"type": "head", "model": MODEL, "file": file, "any_model": True}

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        from tests.unit.score.golden_heads.writers import h14_module, torch_bytes

        known = tmp_path / "h14_nsfw.pth"
        known.write_bytes(torch_bytes({f"layers.{k}": v for k, v in h14_module().state_dict().items()}))
        return {
            "file": {"file": saved(tmp_path / "others.npy", a=unit(2, 1).astype(np.float32))},
            "model": {"model": "other"},
            "kind": {"file": str(known), "kind": "nsfw_h14"},
        }


class TestPromptThresholds(ScorerContract):
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        text = "nsfw: {concepts: {a dog: 0.1, a cat: -0.2}}\nspecial: {concepts: {a car: 0.0}}\n"
        return {"type": "prompt_thresholds", "model": MODEL, "file": written(tmp_path / "list.yml", text)}

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        return {
            "file": {"file": written(tmp_path / "other.yml", "nsfw: {concepts: {a dog: 0.3}}")},
            "model": {"model": "other"},
            "adjustment": {"adjustment": 0.1},
            "special_adjustment": {"special_adjustment": 0.1},
        }


class TestNegClip(ScorerContract):
    tolerance = 1e-6

    @pytest.fixture
    def settings(self) -> Keys:
        return {"type": "negclip", "model": MODEL, "batch_size": 6, "draws": 3, "sample": 12, "device": "cpu"}

    @pytest.fixture
    def changes(self) -> Mapping[str, Keys]:
        return {
            "model": {"model": "other"},
            "batch_size": {"batch_size": 5},
            "draws": {"draws": 4},
            "sample": {"sample": 13},
            "temperature": {"temperature": 0.02},
            "seed": {"seed": 1},
        }


class TestNormSim(ScorerContract):
    norm: str | int = "inf"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        targets = saved(tmp_path / "targets.npz", a=unit(9, 0), b=unit(9, 1))
        return {
            "type": "normsim",
            "model": MODEL,
            "targets": targets,
            "key": "a",
            "norm": self.norm,
            "device": "cpu",
        }

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        return {
            "model": {"model": "other"},
            "targets": {"targets": saved(tmp_path / "others.npz", a=unit(9, 2))},
            "key": {"key": "b"},
            "norm": {"norm": 2 if self.norm == "inf" else "inf"},
            "modality": {"modality": "text"},
        }


class TestNormSim2(TestNormSim):
    norm = 2


class TestMix(ScorerContract):
    @pytest.fixture
    def settings(self) -> Keys:
        return {"type": "mix", "weights": {"quality": 1.0, "original_width": -0.5}}

    @pytest.fixture
    def changes(self) -> Mapping[str, Keys]:
        return {"weights": {"weights": {"quality": 1.0}}, "standardise": {"standardise": False}}


class TestCluster(ScorerContract):
    spherical = True

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        return {
            "type": "cluster",
            "model": MODEL,
            "clusters": 3,
            "sample": 15,
            "spherical": self.spherical,
            "targets": saved(tmp_path / "targets.npy", a=unit(1, 0)),
            "device": "cpu",
        }

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        centroids = saved(tmp_path / "centroids.npz", a=unit(4, 1), b=unit(4, 2))
        given = {"clusters": None, "centroids": centroids, "key": "a", "spherical": None, "targets": None}
        return {
            "model": {"model": "other"},
            "modality": {"modality": "text"},
            "clusters": {"clusters": 4},
            "iterations": {"iterations": 2},
            "spherical": {"spherical": not self.spherical},
            "inner_product": {**given, "inner_product": True},
            "sample": {"sample": 16},
            "seed": {"seed": 1},
            "centroids": given,
            "key": {"key": "a"},
            "targets": {"targets": saved(tmp_path / "others.npy", a=unit(1, 3))},
        }


class TestEuclideanCluster(TestCluster):
    spherical = False


class TestGivenCentroids(TestCluster):
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        centroids = saved(tmp_path / "given.npy", a=unit(5, 5))
        return {"type": "cluster", "model": MODEL, "centroids": centroids, "device": "cpu"}

    @pytest.fixture
    def changes(self) -> Mapping[str, Keys]:
        pytest.skip("see TestCluster")


class TestConcepts(ScorerContract):
    @pytest.fixture
    def settings(self) -> Keys:
        return {"type": "concepts", "model": MODEL, "concepts": ["dog", "red car"], "device": "cpu"}

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        vectors = saved(tmp_path / "concepts.npz", a=unit(2, 0), b=unit(2, 1))
        return {
            "model": {"model": "other"},
            "modality": {"modality": "image"},
            "concepts": {"concepts": ["red car", "dog"]},
            "file": {"concepts": None, "file": written(tmp_path / "list.txt", "cat\n")},
            "vectors": {"concepts": None, "vectors": vectors, "key": "a"},
            "key": {"key": "b"},
            "template": {"template": "a photo of a {}"},
        }


class TestStoredConcepts(ScorerContract):
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        vectors = saved(tmp_path / "concepts.npy", a=unit(3, 0))
        return {"type": "concepts", "model": MODEL, "vectors": vectors, "device": "cpu"}

    @pytest.fixture
    def changes(self) -> Mapping[str, Keys]:
        pytest.skip("see TestConcepts")


class TestHeldOut(ScorerContract):
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        folder = tmp_path / "held"
        folder.mkdir()
        saved(folder / "b.npy", a=unit(5, 0))
        saved(folder / "a.npz", a=unit(4, 1))
        return {"type": "held_out", "model": MODEL, "vectors": str(folder), "device": "cpu"}

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        return {
            "model": {"model": "other"},
            "vectors": {"vectors": saved(tmp_path / "other.npy", a=unit(5, 2))},
            "key": {"key": "a"},
            "modality": {"modality": "text"},
        }


class TestTable(ScorerContract):
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Keys:
        pool = make_pool()
        folder = tmp_path / "tables"
        folder.mkdir()
        for part in range(2):
            rows = [i for i in range(part, len(pool), 2) if i not in pool.empty and i != 1]
            values = [float("nan") if i % 5 == 0 else i / 7 for i in rows]
            uids = pool.samples["uid"].take(pa.array(rows))
            table = pa.table({"uid": uids, "value": values, "note": [f"n{i % 3}" for i in rows], "id": uids})
            pq.write_table(table, folder / f"{part}.parquet")
        return {"type": "table", "paths": str(folder), "columns": ["value", "note"]}

    @pytest.fixture
    def changes(self, tmp_path: Path) -> Mapping[str, Keys]:
        return {
            "paths": {"paths": str(tmp_path / "tables" / "0.parquet")},
            "columns": {"columns": ["value"]},
            "uid_column": {"uid_column": "id"},
        }


def test_every_built_in_kind_is_held_to_the_contract() -> None:
    suites = {name.removeprefix("Test").lower() for name in globals() if name.startswith("Test")}
    built_in = {kind for kind, found in SCORERS.all().items() if found.__module__.startswith("curate.")}
    assert len(built_in) >= 18
    assert {kind.replace("_", "") for kind in built_in} <= suites
