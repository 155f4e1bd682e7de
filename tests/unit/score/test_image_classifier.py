from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from torchvision import transforms

from curate.clip.images import decode
from curate.config.models import EmbedSettings
from curate.config.scorers.image_classifier import ImageClassifierScorer
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.plan import make_plan
from curate.errors import DataError, UserError
from curate.score.classifiers import choose_outputs, probabilities
from curate.score.contract import Shard
from curate.score.kinds.image_classifier import ImageClassifier, View, load, read_state
from curate.score.stage import ScoreStage
from tests.unit.score.odd_images import drawn, laion_state, lost, odd_images, scored, shard_of_odd_images

TINY = "test_efficientnet"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny architecture of timm with three outputs and random weights, moved away from symmetry."""
    torch.manual_seed(0)
    model = timm.create_model(TINY, pretrained=False, num_classes=3)
    state = {
        k: v + 0.1 * torch.randn_like(v) if v.dtype.is_floating_point else v
        for k, v in model.state_dict().items()
    }
    state = {k: v.abs() + 0.5 if k.endswith("running_var") else v for k, v in state.items()}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(state, path)
    return path


def tiny(weights: Path, **more: Any) -> ImageClassifierScorer:
    return ImageClassifierScorer(
        **{
            "type": "image_classifier",
            "architecture": TINY,
            "file": str(weights),
            "labels": ("cat", "dog", "fish"),
            "device": "cpu",
            "batch_size": 4,
            **more,
        }
    )


def timm_probabilities(weights: Path, image: Image.Image) -> list[float]:
    """The same by timm's own transform, one image at a time."""
    from safetensors.torch import load_file

    model = timm.create_model(TINY, pretrained=False, num_classes=3).eval()
    model.load_state_dict(load_file(weights))
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        return torch.softmax(model(transform(image)[None]).double(), dim=1)[0].tolist()


def test_probabilities_are_those_of_timm(tmp_path: Path, weights: Path) -> None:
    workspace = Workspace(str(tmp_path))
    names = shard_of_odd_images(workspace)
    found = scored(workspace, "c", tiny(weights))
    images = odd_images()
    for row, name in enumerate(names):
        values = [found[label][row] for label in ("cat", "dog", "fish")]
        if lost(name):
            assert values == [None] * 3
        elif name not in ("line", "column"):  # timm would scale them to a million pixels first
            expected = timm_probabilities(weights, decode(images[name] or b""))
            assert values == pytest.approx(expected, abs=1e-5), name
        else:
            assert sum(values) == pytest.approx(1, abs=1e-6)
    spread = np.ptp([v for v in found["cat"] if v is not None])
    assert spread > 0.01, "the test's weights tell pictures apart"
    assert workspace.read_table(Family.scores("c").path("00000")).schema.types[1:] == [pa.float32()] * 3


def test_neighbours_and_order_do_not_matter(weights: Path) -> None:
    scorer = ImageClassifier("c", tiny(weights))
    pictures = [drawn(80 + i, 90 - i, i, 3, 5) for i in range(11)]

    def run(order: list[int]) -> dict[int, float]:
        judge = scorer.start(Shard("00000", pa.table({"uid": ["x"] * 20}), {}, {}, None))  # type: ignore[arg-type]
        for i in order:
            judge.add(i, pictures[i])
        column = judge.columns()["cat"].to_pylist()
        assert [i for i, value in enumerate(column) if value is not None] == sorted(order)
        return {i: column[i] for i in order}

    forward, alone = run(list(range(11))), {}
    for i in range(11):
        alone |= run([i])
    assert run(list(range(11))[::-1]) == pytest.approx(forward, abs=1e-6)
    assert alone == pytest.approx(forward, abs=1e-6)
    assert run(list(range(11))) == forward


def test_no_images_at_all(weights: Path) -> None:
    shard = Shard("00000", pa.table({"uid": ["a", "b"]}), {}, {}, None)  # type: ignore[arg-type]
    columns = ImageClassifier("c", tiny(weights)).start(shard).columns()
    assert {name: column.to_pylist() for name, column in columns.items()} == {
        label: [None, None] for label in ("cat", "dog", "fish")
    }


def test_chosen_labels_and_sigmoid(tmp_path: Path, weights: Path) -> None:
    workspace = Workspace(str(tmp_path))
    shard_of_odd_images(workspace)
    alone = scored(workspace, "a", tiny(weights, keep=("fish",)))
    assert list(alone) == ["uid", "fish"]
    every = scored(workspace, "b", tiny(weights, activation="sigmoid", labels=()))
    assert list(every) == ["uid", "class_0", "class_1", "class_2"]
    sums = [sum(v) for v in zip(*list(every.values())[1:], strict=True) if v[0] is not None]
    assert any(abs(total - 1) > 0.01 for total in sums)


def test_the_watermark_preset_is_the_published_pipeline(tmp_path: Path) -> None:
    state, file = laion_state(), tmp_path / "watermark_model_v1.pt"
    torch.save({"weights": state, "epoch": 3}, file)
    settings = ImageClassifierScorer(
        type="image_classifier", preset="laion_watermark", file=str(file), device="cpu", batch_size=2
    )
    scorer = ImageClassifier("w", settings)
    pictures = [drawn(300, 200, 3, 5, 7), drawn(90, 400, 1, 2, 9), Image.new("RGB", (1, 1), (255, 0, 0))]
    judge = scorer.start(Shard("0", pa.table({"uid": ["a", "b", "c", "d"]}), {}, {}, None))  # type: ignore[arg-type]
    for row, picture in enumerate(pictures):
        judge.add(row + 1, picture)
    columns = judge.columns()
    assert list(columns) == ["pwatermark"]
    preprocess = transforms.Compose(
        [
            transforms.Resize((256, 256)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    model = timm.create_model("efficientnet_b3", pretrained=False, num_classes=2)
    model.classifier = torch.nn.Sequential(
        torch.nn.Linear(1536, 625),
        torch.nn.ReLU(),
        torch.nn.Dropout(p=0.3),
        torch.nn.Linear(625, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 2),
    )
    model.load_state_dict(state)
    model.eval()
    with torch.inference_mode():
        expected = [model(preprocess(p)[None]).softmax(dim=1)[0, 0].item() for p in pictures]
    found = columns["pwatermark"].to_pylist()
    assert found[0] is None
    assert found[1:] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (161, 160), (40, 50), (500, 501), (1700, 120)])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "resnet18"])
def test_crops_are_those_of_timm(size: tuple[int, int], name: str) -> None:
    config = resolve_model_data_config(timm.create_model(name, pretrained=False))
    picture = drawn(*size, 3, 5, 7)
    crop_pct, side = config["crop_pct"], config["input_size"][-1]
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    view = View(side, int(side / crop_pct), False, filters[config["interpolation"]], (0,), (1,))
    plain = config | {"mean": (0, 0, 0), "std": (1, 1, 1)}
    expected = create_transform(**plain, is_training=False)(picture)
    assert np.array_equal(
        view.of(picture), (expected.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
    )


def test_an_endless_strip_is_cut_before_it_is_scaled() -> None:
    strip = drawn(60_000, 2, 1, 3, 7)
    view = View(224, 256, False, Image.Resampling.BICUBIC, (0,), (1,))
    middle = strip.crop((30_000 - 16, 0, 30_000 + 16, 2))
    assert np.array_equal(view.of(strip), view.of(middle))
    assert view.of(drawn(3, 50_000, 1, 3, 7)).shape == (224, 224, 3)


def test_activations_are_stable_and_never_nan() -> None:
    logits = np.array([[1000.0, -1000.0], [0.0, 0.0], [3.0, 1.0]], np.float32)
    assert probabilities(logits, "sigmoid").tolist()[:2] == [[1.0, 0.0], [0.5, 0.5]]
    assert probabilities(logits, "softmax").tolist()[:2] == [[1.0, 0.0], [0.5, 0.5]]
    assert probabilities(logits, "softmax")[2, 0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert probabilities(np.empty((0, 3), np.float32), "softmax").shape == (0, 3)
    with pytest.raises(DataError, match="not finite"):
        probabilities(np.array([[np.nan, 0]], np.float32), "softmax")


def test_labels_are_checked() -> None:
    named = choose_outputs(2, (), ("Not Safe!", "ok"), (), "softmax", "p")
    assert named.labels == {"not_safe": 0, "ok": 1}
    with pytest.raises(UserError, match="3 labels, but the model has 2"):
        choose_outputs(2, ("a", "b", "c"), (), (), "softmax", "p")
    with pytest.raises(UserError, match="no label 'x'"):
        choose_outputs(2, ("a", "b"), (), ("x",), "softmax", "p")
    with pytest.raises(UserError, match="1000 outputs"):
        choose_outputs(1000, (), (), (), "softmax", "p")
    assert choose_outputs(1000, (), (), ("class_207",), "softmax", "p").labels == {"class_207": 207}
    with pytest.raises(UserError, match="one name"):
        choose_outputs(2, (), ("a b", "a-b"), (), "softmax", "p")


def test_weights_are_read_without_running_them(tmp_path: Path, weights: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    out = io.BytesIO()
    torch.save({"state_dict": Trap()}, out)
    with pytest.raises(UserError, match="holds no weights"):
        read_state(out.getvalue(), "trap.pt", "p")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UserError, match="git-lfs"):
        read_state(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "w.pt", "p")
    with pytest.raises(UserError, match="holds no weights"):
        read_state(b"", "w.safetensors", "p")
    out = io.BytesIO()
    torch.save([1, 2], out)
    with pytest.raises(UserError, match="no state dict"):
        read_state(out.getvalue(), "w.pt", "p")
    out = io.BytesIO()
    torch.save({"model": {"module.a": torch.ones(2)}}, out)
    assert read_state(out.getvalue(), "w.pt", "p")["a"].tolist() == [1, 1]


def test_mistakes_are_named(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean .*test_efficientnet"):
        judge_of(tiny(weights, architecture="test_eficientnet"))
    with pytest.raises(UserError, match="does not fit 'test_resnet'"):
        judge_of(tiny(weights, architecture="test_resnet", labels=()))
    with pytest.raises(UserError, match="no such file"):
        judge_of(tiny(tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match="4 labels"):
        judge_of(tiny(weights, labels=("a", "b", "c", "d")))
    with pytest.raises(ValueError, match="either `architecture` or `preset`"):
        ImageClassifierScorer(type="image_classifier")
    with pytest.raises(ValueError, match="needs `file`"):
        ImageClassifierScorer(type="image_classifier", preset="laion_watermark")
    with pytest.raises(ValueError, match="settles size"):
        ImageClassifierScorer(type="image_classifier", preset="laion_watermark", file="x", size=320)


def judge_of(settings: ImageClassifierScorer) -> None:
    scorer = ImageClassifier("c", settings)
    load(settings, scorer.file, scorer.digest, scorer.place)


def test_the_bytes_of_the_weights_count_and_not_their_place(tmp_path: Path, weights: Path) -> None:
    workspace = Workspace(str(tmp_path / "w"))
    shard_of_odd_images(workspace)
    scored(workspace, "c", tiny(weights))
    moved = tmp_path / "other.safetensors"
    moved.write_bytes(weights.read_bytes())

    def jobs(settings: ImageClassifierScorer) -> int:
        return len(
            make_plan(ScoreStage("c", settings, EmbedSettings()), workspace, RecordStore(workspace)).jobs
        )

    assert jobs(tiny(moved, batch_size=9, device="auto")) == 0
    state = read_state(weights.read_bytes(), str(weights), "p")
    save_file({k: v + (0.01 if v.dtype.is_floating_point else 0) for k, v in state.items()}, moved)
    assert jobs(tiny(moved)) == 1


def test_a_gpu_is_asked_for_unless_the_settings_say_cpu(weights: Path) -> None:
    assert ScoreStage("c", tiny(weights, device="auto"), EmbedSettings()).gpu is True
    on_cpu = pickle.loads(pickle.dumps(ScoreStage("c", tiny(weights), EmbedSettings())))
    assert on_cpu.gpu is False
    assert on_cpu.scorer.facts == ImageClassifier("c", tiny(weights)).facts
