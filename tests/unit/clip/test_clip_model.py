from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from curate.clip.images import decode
from curate.clip.model import load, state_digest
from curate.config.models import ModelSettings
from curate.errors import UserError
from tests.unit.embed.clip_shards import MODEL_CFG, jpeg, save_clip, settings_of


def test_a_local_folder_loads_with_its_own_facts(tiny: Path) -> None:
    clip = load(settings_of(tiny))
    assert clip.facts["dim"] == 32
    assert clip.facts["context_length"] == 16
    assert clip.facts["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert clip.facts["weights"] == state_digest(load_file(tiny / "open_clip_model.safetensors"))


@pytest.mark.parametrize(("way", "tolerance"), [("exact", 1e-5), ("fast", 1e-3)])
def test_vectors_have_unit_length_and_are_open_clips(tiny: Path, way: str, tolerance: float) -> None:
    import open_clip

    clip = load(settings_of(tiny, preprocess=way))
    images = clip.encode_images(np.stack([clip.prepare(decode(jpeg(i))) for i in range(3)]))
    texts = clip.encode_texts(["a cat", "two dogs in the snow"])
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tiny}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tiny}")(["a cat", "two dogs in the snow"])
    with torch.no_grad():
        batch = torch.stack([preprocess(Image.open(io.BytesIO(jpeg(i))).convert("RGB")) for i in range(3)])
        assert np.allclose(images, model.encode_image(batch, normalize=True).numpy(), atol=tolerance)
        assert np.allclose(texts, model.encode_text(tokens, normalize=True).numpy(), atol=1e-5)


def test_other_weights_at_the_same_path_are_another_model(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "m", seed=1)
    before = load(settings_of(folder)).facts
    save_clip(folder, seed=2)
    after = load(settings_of(folder)).facts
    assert before["weights"] != after["weights"]
    assert before["checkpoint"] != after["checkpoint"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "ViT-B-32"}, "needs weights.*openai"),
        ({"model": "ViT-B-33", "pretrained": "openai"}, "no model named 'ViT-B-33'.*ViT-B-32"),
        ({"model": "ViT-B-32", "pretrained": "opnai"}, "neither a file nor a tag.*openai"),
        ({"model": "local-dir:/nowhere"}, "no such folder /nowhere"),
        ({"model": "demo", "pretrained": "openai"}, "brings its own weights"),
    ],
)
def test_a_model_that_cannot_be_had_is_an_error_that_names_the_fix(
    settings: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load(ModelSettings(device="cpu", **settings))
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_never_gives_random_numbers(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "m")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        load(settings_of(folder))


def test_weights_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "m")
    config = json.dumps({"model_cfg": {**MODEL_CFG, "embed_dim": 64}, "preprocess_cfg": {}})
    (folder / "open_clip_config.json").write_text(config)
    with pytest.raises(UserError, match="does not fit"):
        load(settings_of(folder))


def test_a_checkpoint_file_beside_an_architectures_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    folder = save_clip(tmp_path / "m")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny-test.json").write_text(json.dumps(MODEL_CFG))
    open_clip.add_model_config(tmp_path / "configs")
    state = load_file(folder / "open_clip_model.safetensors")
    torch.save(state, tmp_path / "tiny.pt")
    clip = load(ModelSettings(model="tiny-test", pretrained=str(tmp_path / "tiny.pt"), device="cpu"))
    assert clip.facts["weights"] == load(settings_of(folder)).facts["weights"]


def test_cuda_that_is_not_there(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="cuda"):
        load(settings_of(tiny).model_copy(update={"device": "cuda"}))


def test_the_real_tensors_of_clip_retrieval(fixtures_dir: Path) -> None:
    """Pillow's bicubic and a centre crop give the 224-pixel tensors that clip-retrieval stored."""
    import pickletools

    from open_clip.transform import PreprocessCfg, image_transform_v2

    folder = fixtures_dir / "embeddings/clip_retrieval_golden/tests/test_clip_inference/test_tensors"
    data = (folder / "0.pkl").read_bytes()
    blobs = [arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, bytes) and len(arg) > 100_000]
    (stored,) = [torch.load(io.BytesIO(blob), weights_only=True) for blob in blobs]
    stored = np.asarray(stored, np.float32).reshape(-1, 3, 224, 224)
    transform = image_transform_v2(PreprocessCfg(size=224), is_train=False)
    pictures = sorted((fixtures_dir / "images/clip_retrieval_images").glob("*.jpg"))
    ours = [transform(decode(path.read_bytes())).numpy() for path in pictures]
    for tensor in stored:
        assert min(float(np.abs(tensor - one).max()) for one in ours) < 1e-5
