from __future__ import annotations

import io
import pickletools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from curate.clip.images import ImageError, decode
from curate.clip.model import load
from curate.clip.pixels import Preparation
from curate.config.models import ModelSettings

CONFIGS = [
    {"size": 64},
    {"size": (48, 48), "interpolation": "bilinear"},
    {"size": 64, "resize_mode": "squash"},
    {"size": 56, "resize_mode": "longest", "fill_color": 127},
    {"size": (40, 60)},
]
SIZES = [(64, 64), (640, 427), (31, 200), (200, 31), (65, 64), (1, 1), (7, 3), (90, 64)]


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Smooth areas with sharp edges, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    smooth = np.array(coarse.resize(size, Image.Resampling.BICUBIC))
    smooth[: size[1] // 3, : size[0] // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(smooth)


def reference(config: dict[str, object], image: Image.Image) -> torch.Tensor:
    out: torch.Tensor = image_transform_v2(PreprocessCfg(**config), is_train=False)(image)
    return out


def made(preparation: Preparation, image: Image.Image) -> torch.Tensor:
    batch = np.zeros((1, *preparation.shape), preparation.dtype)
    batch[0] = preparation.prepare(image)
    return preparation.normalised(torch.from_numpy(batch))[0]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", SIZES)
def test_exact_is_the_models_own_transform_to_the_bit(
    config: dict[str, object], size: tuple[int, int]
) -> None:
    image = picture(size)
    assert torch.equal(made(Preparation.of(config, exact=True), image), reference(config, image))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", SIZES)
def test_fast_differs_from_it_by_rounding(config: dict[str, object], size: tuple[int, int]) -> None:
    image = picture(size)
    levels = (made(Preparation.of(config, exact=False), image) - reference(config, image)).abs()
    levels *= 255 * min(PreprocessCfg(**config).std)
    assert levels.max() < 3.01
    assert levels.mean() < 0.1


def test_normalising_bytes_on_the_device_is_what_torchvision_does_before(tmp_path: Path) -> None:
    image = picture((64, 64))
    config = {"size": 64}
    assert torch.equal(made(Preparation.of(config, exact=False), image), reference(config, image))


def test_modes_without_a_fast_way_are_exact() -> None:
    assert not Preparation.of({"size": 64}, exact=False).exact
    assert Preparation.of({"size": 64, "resize_mode": "longest"}, exact=False).exact
    assert Preparation.of({"size": (40, 60)}, exact=False).exact


@pytest.mark.parametrize("size", [(2, 65500), (65500, 2), (1, 40000)])
@pytest.mark.parametrize("exact", [True, False])
def test_a_strip_does_not_cost_the_memory_of_its_whole_length(size: tuple[int, int], exact: bool) -> None:
    import resource

    image = picture(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Preparation.of({"size": 224}, exact=exact).prepare(image)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 200e6  # resized as a whole it would be 224 x 7.3 million pixels


def test_a_strips_middle_is_what_resize_and_crop_would_give() -> None:
    image = picture((33 * 40, 40))
    config = {"size": 64}
    levels = (made(Preparation.of(config, exact=True), image) - reference(config, image)).abs()
    assert levels.mean() * 255 * min(PreprocessCfg().std) < 0.1


def test_fast_embeddings_of_real_photographs_are_those_of_exact(fixtures_dir: Path) -> None:
    files = [p for d in ("cc_test_images", "fashion_catalog", "imagededup", "pdq", "clip_retrieval_images")
             for p in sorted((fixtures_dir / "images" / d).rglob("*"))
             if p.suffix.lower() in (".jpg", ".jpeg", ".png")]  # fmt: skip
    images = []
    for path in files:
        try:
            images.append(decode(path.read_bytes()))
        except ImageError:  # one of them is corrupt on purpose
            continue
    assert len(images) > 50
    exact = load(ModelSettings(model="demo", device="cpu", preprocess="exact"))
    fast = load(ModelSettings(model="demo", device="cpu"))
    ours, theirs = (c.encode_images(np.stack([c.prepare(i) for i in images])) for c in (fast, exact))
    assert (ours * theirs).sum(axis=1).min() > 0.9999
    texts = exact.encode_texts(["a red car", "a dress", "a photograph of mountains", "text on a sign"])
    assert np.abs((ours - theirs) @ texts.T).max() < 0.002


def unpickled(path: Path) -> tuple[list[str], list[bytes]]:
    """Names and binary blobs in a pickle, read without running it."""
    names: list[str] = []
    blobs: list[bytes] = []
    for code, value, _ in pickletools.genops(path.read_bytes()):
        if "BINBYTES" in code.name and len(value) > 100:
            blobs.append(value)
        elif "UNICODE" in code.name and re.search(r"\d+_\d+(\.jpg)?$", value):
            names.append(Path(value).stem)
    return names, blobs


def test_clip_retrievals_tensors_are_reproduced(fixtures_dir: Path) -> None:
    """Golden: the 224-pixel tensors that clip-retrieval's own tests compare with, extreme shapes."""
    golden = fixtures_dir / "embeddings/clip_retrieval_golden/tests/test_clip_inference"
    pictures = {p.stem: p for p in (fixtures_dir / "images/clip_retrieval_images").glob("*.jpg")}
    exact, fast = (Preparation.of({"size": 224}, exact=exact) for exact in (True, False))
    seen = []
    for number in range(4):
        names, (storage,) = unpickled(golden / "test_tensors" / f"{number}.pkl")
        tensors = torch.load(io.BytesIO(storage), weights_only=True)
        found = torch.tensor(tensors.tolist() if not hasattr(tensors, "untyped_storage") else list(tensors))
        found = found.view(len(names), 3, 224, 224)
        for name, tensor in zip(names, found, strict=True):
            image = decode(pictures[name].read_bytes())
            assert (made(exact, image) - tensor).abs().max() < 1e-6
            assert (made(fast, image) - tensor).abs().max() < 3.01 / 255 / 0.26
        _, blobs = unpickled(golden / "test_embeddings" / f"{number}.pkl")
        assert len(blobs[0]) == len(names) * 512 * 2
        seen += names
    assert sorted(seen) == sorted(pictures)


def test_jpeg_bytes_to_pixels_and_back() -> None:
    out = io.BytesIO()
    picture((100, 80)).save(out, "PNG")
    prepared = Preparation.of({"size": 64}, exact=False).prepare(decode(out.getvalue()))
    assert prepared.shape == (64, 64, 3)
    assert prepared.dtype == np.uint8
