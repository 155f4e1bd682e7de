"""Heads in every published format: real files where they are at hand, and files the tests write."""

from __future__ import annotations

import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from torch import nn

from curate.errors import UserError
from curate.score.heads import Space, head_from_sequential, load_head, save_head
from curate.score.heads.layers import Lookup, keys_of
from curate.score.heads.load import head_from_bytes
from curate.score.heads.spaces import LAION_H14, OPENAI_B16, OPENAI_B32, OPENAI_L14
from tests.unit.score.golden_heads import make_goldens
from tests.unit.score.golden_heads.writers import (
    LaionPort,
    aesthetic_v2_module,
    bundle,
    datacomp_module,
    h14_module,
    keras_head,
    metadata,
    table,
    torch_bytes,
    unit,
)

GOLDENS = Path(__file__).with_name("golden_heads") / "keras_goldens.npz"


def by_torch(module: nn.Module, vectors: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(nn.functional.normalize(torch.from_numpy(vectors.astype(np.float32)))).numpy()


def wrapped(module: nn.Sequential) -> OrderedDict:
    return OrderedDict((f"layers.{k}", v) for k, v in module.state_dict().items())


def linear(dim: int) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(dim, 1)


# --- the real files -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(make_goldens.HEADS))
def test_real_keras_zip_is_what_tensorflow_says(fixtures_dir: Path, name: str) -> None:
    head = load_head(str(fixtures_dir / "heads" / f"{name}.zip"))
    vectors = make_goldens.inputs(name)
    assert head.space == {512: OPENAI_B32, 768: OPENAI_L14}[head.dim]
    assert head.input == "stored"
    with np.load(GOLDENS) as goldens:
        np.testing.assert_allclose(head(vectors)[:, 0], goldens[name], rtol=3e-5, atol=3e-7)
    lookups = [layer for layer in head.layers if isinstance(layer, Lookup)]
    assert [layer.dim for layer in lookups] == list(make_goldens.HEADS[name][1])
    for layer in lookups:
        met = np.isin(keys_of(vectors[32:, layer.dim].astype(np.float32)), layer.keys)
        assert met.mean() > 0.5, "the goldens go through the tables"


@pytest.mark.parametrize(
    ("zipped", "port", "widths"),
    [
        ("clip_autokeras_nsfw_b32.zip", "clip_ViT-B-32_openai_binary_nsfw_head.pth", (512, 32, 32, 1)),
        (
            "clip_autokeras_binary_nsfw.zip",
            "clip_ViT-L-14_openai_binary_nsfw_head.pth",
            (768, 64, 512, 256, 1),
        ),
    ],
)
def test_real_port_is_its_module_and_the_zip_without_tables(
    fixtures_dir: Path, zipped: str, port: str, widths: tuple[int, ...]
) -> None:
    path = fixtures_dir / "heads" / port
    module = LaionPort(widths)
    module.load_state_dict(torch.load(path, weights_only=True))
    vectors = unit(200, widths[0], 4)
    head = load_head(str(path))
    np.testing.assert_allclose(head(vectors), by_torch(module, vectors), rtol=2e-5, atol=1e-6)
    keras = load_head(str(fixtures_dir / "heads" / zipped))
    plain = tuple(layer for layer in keras.layers if not isinstance(layer, Lookup))
    assert keras.kind == head.kind
    for ours, theirs in zip(plain, head.layers, strict=True):
        for key, value in vars(ours).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(value, vars(theirs)[key], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind", "space"),
    [
        ("aesthetic_v1/sa_0_4_vit_b_32_linear.pth", "aesthetic_v1_b32", OPENAI_B32),
        ("aesthetic_v1/sa_0_4_vit_b_16_linear.pth", "aesthetic_v1_b16", OPENAI_B16),
        ("aesthetic_v1/sa_0_4_vit_l_14_linear.pth", "aesthetic_v1_l14", OPENAI_L14),
    ],
)
def test_real_aesthetic_v1(fixtures_dir: Path, name: str, kind: str, space: Space) -> None:
    path = fixtures_dir / "heads" / name
    head = load_head(str(path))
    assert (head.kind, head.space) == (kind, space)
    module = nn.Linear(head.dim, 1)
    module.load_state_dict(torch.load(path, weights_only=True))
    vectors = unit(100, head.dim, 0)
    np.testing.assert_allclose(head(vectors), by_torch(module, vectors), rtol=1e-5, atol=1e-5)


def test_real_aesthetic_v2(fixtures_dir: Path) -> None:
    path = fixtures_dir / "heads" / "sac+logos+ava1-l14-linearMSE.pth"
    head = load_head(str(path))
    assert (head.kind, head.space) == ("aesthetic_v2", OPENAI_L14)
    module = aesthetic_v2_module()
    state = torch.load(path, weights_only=True, map_location="cpu")
    module.load_state_dict({key.removeprefix("layers."): value for key, value in state.items()})
    vectors = unit(100, 768, 0)
    np.testing.assert_allclose(head(vectors), by_torch(module, vectors), rtol=1e-5, atol=1e-5)
    ratings = [
        float(head(np.load(fixtures_dir / f"heads/aesthetic_v1/vit_l_14_embeddings/rating{i}.npy"))[0, 0])
        for i in (1, 9)
    ]
    assert ratings[0] < ratings[1], "mean embeddings of badly and of well rated pictures"


@pytest.mark.parametrize(("size", "space"), [("b_32", OPENAI_B32), ("l_14", OPENAI_L14)])
def test_real_violence_vectors_are_clip_retrievals_argmax(
    fixtures_dir: Path, size: str, space: Space
) -> None:
    path = fixtures_dir / "heads" / f"violence_detection_vit_{size}.npy"
    head, prompts = load_head(str(path)), np.load(path)
    assert head.space == space
    vectors = unit(500, head.dim, 9)
    verdict = (
        np.argmax(np.einsum("ij,kj->ik", vectors.astype(np.float64), prompts.astype(np.float64)), axis=1) == 1
    )
    assert 0 < verdict.sum() < len(verdict)
    assert ((head(vectors)[:, 0] > 0) == verdict).all()


def test_real_zip_survives_our_own_format(fixtures_dir: Path, tmp_path: Path) -> None:
    head = load_head(str(fixtures_dir / "heads" / "clip_autokeras_nsfw_b32.zip"))
    save_head(head, tmp_path / "nsfw.safetensors")
    again = load_head(str(tmp_path / "nsfw.safetensors"))
    vectors = make_goldens.inputs("clip_autokeras_nsfw_b32")
    assert np.array_equal(again(vectors), head(vectors))
    assert (again.space, again.input) == (head.space, "stored")


# --- files in the published formats, written here -------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("module", "state", "kind", "space"),
    [
        (h14_module(), wrapped(h14_module()), "nsfw_h14", LAION_H14),
        (aesthetic_v2_module(), wrapped(aesthetic_v2_module()), "aesthetic_v2", OPENAI_L14),
        (
            aesthetic_v2_module(relu=True),
            {"state_dict": wrapped(aesthetic_v2_module(relu=True)), "epoch": 3},
            "aesthetic_v2_relu",
            OPENAI_L14,
        ),
        (datacomp_module(), datacomp_module().state_dict(), "nsfw_datacomp", OPENAI_L14),
        (LaionPort((512, 32, 32, 1)), LaionPort((512, 32, 32, 1)).state_dict(), "nsfw_b32", OPENAI_B32),
        (
            linear(768),
            {f"module.{k}": v for k, v in linear(768).state_dict().items()},
            "aesthetic_v1_l14",
            OPENAI_L14,
        ),
    ],
)
def test_torch_files_are_told_by_their_tensors(
    module: nn.Module, state: Any, kind: str, space: Space, legacy: bool
) -> None:
    head = head_from_bytes(torch_bytes(state, legacy), "renamed.pth")
    assert (head.kind, head.space, head.input) == (kind, space, "unit")
    vectors = unit(60, head.dim, 2)
    np.testing.assert_allclose(head(vectors), by_torch(module, vectors), rtol=1e-5, atol=1e-5)


def test_what_shapes_leave_open_is_asked_for() -> None:
    data = torch_bytes(linear(512).state_dict())
    assert head_from_bytes(data, "sa_0_4_vit_b_16_linear.pth").space == OPENAI_B16
    assert head_from_bytes(data, "mine.pth", "aesthetic_v1_b32").space == OPENAI_B32
    with pytest.raises(ValueError, match="kind: aesthetic_v1_b32` or `aesthetic_v1_b16"):
        head_from_bytes(data, "mine.pth")
    with pytest.raises(ValueError, match="not those of `kind: nsfw_h14`"):
        head_from_bytes(data, "mine.pth", "nsfw_h14")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sets(st.integers(0, 11), max_size=4), st.booleans())
def test_keras_zip_is_its_definition(seed: int, categories: set[int], rooted: bool) -> None:
    made = keras_head([12, 6, 5, 1], sorted(categories), seed)
    head = head_from_bytes(made.zip("a/b/" if rooted else ""), "x.zip")
    vectors = np.random.default_rng(seed).uniform(-0.11, 0.11, (40, 12)).astype(np.float16)
    vectors[0] = 0.01
    vectors[1] = -0.0
    vectors[1, 0] = 1
    if not categories:
        vectors = vectors.astype(np.float64) / np.linalg.norm(
            vectors.astype(np.float64), axis=1, keepdims=True
        )
    np.testing.assert_allclose(head(vectors)[:, 0], made.plain(vectors), rtol=3e-6, atol=1e-9)
    assert head.space is None
    assert head.input == ("stored" if categories else "unit")


def test_keras_heads_of_laions_widths_are_laions() -> None:
    assert head_from_bytes(keras_head([512, 32, 32, 1], [92]).zip(), "x.zip").space == OPENAI_B32
    assert head_from_bytes(keras_head([768, 64, 512, 256, 1], [180, 644]).zip(), "x.zip").space == OPENAI_L14
    with pytest.raises(ValueError, match="kind: nsfw_b32"):
        head_from_bytes(keras_head([12, 4, 1], []).zip(), "x.zip", "nsfw_b32")


def test_keras_layers_beyond_the_published_ones() -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "layer_with_weights-0/kernel": rng.normal(size=(4, 3)),
        "layer_with_weights-1/moving_mean": rng.normal(size=3),
        "layer_with_weights-1/moving_variance": rng.uniform(0.5, 2, 3),
        "layer_with_weights-1/gamma": rng.normal(size=3),
        "layer_with_weights-1/beta": rng.normal(size=3),
        "layer_with_weights-2/kernel": rng.normal(size=(3, 2)),
        "layer_with_weights-2/bias": rng.normal(size=2),
    }
    layers = [
        {"class_name": "Dense", "config": {"activation": "linear", "use_bias": False}},
        {"class_name": "BatchNormalization", "config": {"epsilon": 1e-3}},
        {"class_name": "Activation", "config": {"activation": "swish"}},
        {"class_name": "Dense", "config": {"activation": "softmax", "use_bias": True}},
    ]
    for i, layer in enumerate(layers):
        layer["config"]["name"] = f"l{i}"
    index, data = bundle(tensors)
    made = keras_head([4, 3, 1], []).zip(
        keras_metadata_pb=metadata(layers), variables_index=index, variables_data=data
    )
    head = head_from_bytes(made, "x.zip")
    assert head.outputs == ("0", "1")
    x = unit(8, 4, 0).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    k, mean, variance, gamma, beta, k2, b2 = (
        v.astype(np.float32).astype(np.float64) for v in tensors.values()
    )
    h = (x @ k - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    h = h / (1 + np.exp(-h))
    expected = np.exp(h @ k2 + b2)
    np.testing.assert_allclose(head(x), expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_two_prompt_vectors_in_either_form(dtype: type) -> None:
    prompts = unit(2, 768, 3).astype(np.float32) * [[22.0], [3.0]]
    expected = unit(30, 768, 8).astype(np.float64) @ (unit(2, 768, 3).astype(np.float64)).T
    for data in (
        npy(prompts.astype(dtype)),
        npy(np.asfortranarray(prompts.astype(dtype))),
        *(pickle.dumps(prompts.astype(dtype), protocol=p) for p in (2, 3, 4)),
        *(pickle.dumps(np.asfortranarray(prompts.astype(dtype)), protocol=p) for p in (3, 4)),
    ):
        head = head_from_bytes(data, "prompts.p")
        assert head.space == OPENAI_L14
        np.testing.assert_allclose(head(unit(30, 768, 8))[:, 0], expected[:, 1] - expected[:, 0], atol=1e-3)


def test_one_or_many_prompt_vectors() -> None:
    one, many = npy(unit(1, 24, 0)[0]), npy(unit(3, 24, 1))
    vectors = unit(5, 24, 2)
    assert head_from_bytes(one, "x.npy").space is None
    np.testing.assert_allclose(
        head_from_bytes(many, "x.npy")(vectors),
        vectors.astype(float) @ unit(3, 24, 1).astype(float).T,
        atol=2e-3,
    )
    assert head_from_bytes(one, "x.npy").outputs == ("score",)
    assert head_from_bytes(many, "x.npy").outputs == ("0", "1", "2")
    with pytest.raises(ValueError, match="prompts_b32` or `prompts_b16"):
        head_from_bytes(npy(unit(2, 512, 0)), "prompts.npy")
    assert head_from_bytes(npy(unit(2, 512, 0)), "prompts.npy", "prompts_b16").space == OPENAI_B16


# --- our own format -------------------------------------------------------------------------------


def test_own_format_keeps_the_bytes_and_the_scores(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Linear(16, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Linear(8, 2),
        nn.Softmax(1),
    ).eval()
    head = head_from_sequential(module, Space("demo", None), ("keep", "drop"))
    files = save_head(head, tmp_path / "mine.safetensors", "what it is for")
    before = [path.read_bytes() for path in files]
    save_head(load_head(str(files[0])), tmp_path / "mine.safetensors", "what it is for")
    assert [path.read_bytes() for path in files] == before
    again = load_head(str(files[0]))
    vectors = unit(20, 16, 0)
    assert again.outputs == ("keep", "drop")
    assert again.space == Space("demo", None)
    np.testing.assert_allclose(again(vectors), by_torch(module, vectors), rtol=1e-5)
    with pytest.raises(ValueError, match="LayerNorm"):
        head_from_sequential(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 1)), None)
    with pytest.raises(ValueError, match="LeakyReLU"):
        head_from_sequential(nn.Sequential(nn.Linear(16, 1), nn.LeakyReLU(0.3)), None)
    with pytest.raises(ValueError, match=r"\.safetensors"):
        save_head(head, tmp_path / "mine.pt")


def own(folder: Path, layers: Any, tensors: dict[str, np.ndarray] | None = None, **more: Any) -> str:
    path = folder / "h.safetensors"
    path.write_bytes(save(tensors or {"w": np.ones((1, 4), np.float32)}))
    (folder / "h.json").write_text(json.dumps({"format": "curate-head-1", "layers": layers, **more}))
    return str(path)


LINEAR = {"type": "linear", "weight": "w"}


def test_own_format_by_hand(tmp_path: Path) -> None:
    tensors = {
        "w": np.array([[1, 2, 3, 4]], np.float16),
        "m": np.array([0.5, 0, 0, 0], np.float32),
        "v": np.array([4, 1, 1, 1], np.float32),
    }
    path = own(
        tmp_path, [{"type": "normalize", "mean": "m", "variance": "v"}, LINEAR, {"type": "relu"}], tensors
    )
    found = load_head(path)(np.array([[1, 0, 0, 0], [0, -1, 0, 0]], np.float16))
    assert found[:, 0].tolist() == [0.25, 0.0]


@pytest.mark.parametrize(
    ("layers", "more", "says"),
    [
        ([LINEAR], {"outputs": ["a", "b"]}, "1 outputs"),
        ([LINEAR], {"extra": 1}, "extra"),
        ([LINEAR], {"format": "x"}, "format: "),
        ([{"type": "linear", "weight": "nope"}], {}, "'nope' is missing; there are w"),
        ([{"type": "conv"}], {}, "layers.0: "),
        ([], {}, "layers: "),
        ([{"type": "normalize", "mean": "z", "variance": "z"}, LINEAR], {}, "not positive"),
    ],
)
def test_own_format_mistakes_are_one_line(tmp_path: Path, layers: Any, more: Any, says: str) -> None:
    tensors = {"w": np.ones((1, 4), np.float32), "z": np.zeros(4, np.float32)}
    path = own(tmp_path, layers, tensors, **more)
    with pytest.raises(UserError, match=r"h\.json: ") as error:
        load_head(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


# --- broken files ---------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple:
        return (Path("executed").write_text, ("x",))


def nan_state() -> dict[str, torch.Tensor]:
    state = wrapped(aesthetic_v2_module())
    state["layers.4.bias"][3] = float("nan")
    return state


def without(state: OrderedDict, key: str) -> OrderedDict:
    return OrderedDict((k, v) for k, v in state.items() if k != key)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


KERAS = keras_head([12, 4, 1], [3])
FILES = KERAS.files()
CHAIN = [{**layer, "inbound_nodes": [[["layer_0", 0, 0, {}]]]} for layer in KERAS.layers()[1:]]
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a Keras zip, PyTorch file"),
    "text": (b"<!DOCTYPE html>", "not a Keras zip, PyTorch file"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "cut keras zip": (KERAS.zip()[:-200], "not a whole zip file"),
    "zip of something": (KERAS.zip(keras_metadata_pb=None), "without keras_metadata.pb"),
    "no graph": (KERAS.zip(saved_model_pb=None), "without saved_model.pb"),
    "no variables": (KERAS.zip(variables_data=None), "its variables: "),
    "variables cut": (KERAS.zip(variables_data=b"\0" * 9), "its bytes are missing"),
    "variables damaged": (
        KERAS.zip(variables_data=flipped(FILES["variables/variables.data-00000-of-00001"], 5)),
        "its bytes are damaged",
    ),
    "index damaged": (KERAS.zip(variables_index=flipped(FILES["variables/variables.index"], 9)), "damaged"),
    "index cut": (KERAS.zip(variables_index=FILES["variables/variables.index"][:-9]), "cut short"),
    "index empty": (KERAS.zip(variables_index=table({})), "has no mean"),
    "metadata no json": (KERAS.zip(keras_metadata_pb=b"\x0a\x03abc"), "keras_metadata.pb: "),
    "graph cut": (KERAS.zip(saved_model_pb=FILES["saved_model.pb"][:-30]), "saved_model.pb: "),
    "graph empty": (KERAS.zip(saved_model_pb=b""), "saved_model.pb: "),
    "layers that fork": (KERAS.zip(keras_metadata_pb=metadata(CHAIN)), "not the layer before it"),
    "cut pth": (torch_bytes(wrapped(aesthetic_v2_module()))[:-5000], "not a whole"),
    "pth of objects": (torch_bytes({"a": Evil()}), "could run code"),
    "pth of objects, legacy": (torch_bytes({"a": Evil()}, legacy=True), "could run code"),
    "pth of a module": (torch_bytes(linear(4)), "could run code"),
    "pth of a list": (torch_bytes([1, 2]), "holds a list"),
    "pth of numbers": (torch_bytes({"a": 1}), "'a' is not a tensor"),
    "tensor missing": (torch_bytes(without(wrapped(h14_module()), "layers.3.bias")), "docs/heads.md"),
    "unknown tensors": (torch_bytes(linear(99).state_dict()), "weight (1, 99)"),
    "nan": (torch_bytes(nan_state()), "'layers.4.bias' holds NaN"),
    "pickle of objects": (pickle.dumps(Evil()), "can run code"),
    "pickle of objects 0": (pickle.dumps(Evil(), protocol=2), "can run code"),
    "pickle of a list": (pickle.dumps([1.0]), "not of one array"),
    "pickle of ints": (pickle.dumps(np.arange(4)), "not of one array"),
    "cut pickle": (pickle.dumps(unit(2, 8, 0))[:-20], ""),
    "cut npy": (npy(unit(2, 8, 0))[:-3], "not a whole npy"),
    "npy of objects": (npy(np.array([Evil()])), "not a whole npy"),
    "npy of ints": (npy(np.arange(3)), "expected floating point"),
    "npy of nan": (npy(np.full((2, 8), np.nan)), "finite"),
    "npy of zeros": (npy(np.zeros((2, 8))), "zero"),
    "npy of images": (npy(np.ones((2, 8, 8))), "expected finite vectors"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_files_are_one_line_with_the_files_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, says = BROKEN[name]
    path = tmp_path / "head.bin"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        load_head(str(path), place="score.scorers.x.file")
    message = str(error.value)
    assert message.startswith(f"score.scorers.x.file: {path}: ")
    assert says in message
    assert "\n" not in message
    assert not (tmp_path / "executed").exists()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_head(str(tmp_path / "none.pth"))
    (tmp_path / "alone.safetensors").write_bytes(save({"w": np.ones((1, 4), np.float32)}))
    with pytest.raises(UserError, match=r"alone\.json: no such file"):
        load_head(str(tmp_path / "alone.safetensors"))
    (tmp_path / "alone.json").write_text('{"format": "curate-head-1", "layers": [{"type": "relu"}]}')
    (tmp_path / "alone.safetensors").write_bytes(b"\x99" * 40)
    with pytest.raises(UserError, match=r"alone\.safetensors: not a whole safetensors"):
        load_head(str(tmp_path / "alone.safetensors"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_of_a_keras_zips_parts_is_a_traceback(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FILES)))
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    key = name.rpartition("/")[2].partition("-")[0].replace(".", "_")
    try:
        head = head_from_bytes(KERAS.zip(**{key: bytes(content[:cut])}), "x.zip")
    except ValueError:
        return
    assert head(unit(3, head.dim, 0)).shape[0] == 3


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([2, 3, 4]), st.integers(0, 10**6))
def test_no_damage_of_a_pickle_is_a_traceback(protocol: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(pickle.dumps(unit(2, 8, 0), protocol=protocol))
    for at in rng.integers(0, len(content), 3):
        content[at] = rng.integers(0, 256)
    try:
        head = head_from_bytes(b"\x80" + bytes(content[1:]), "x.p")
    except ValueError:
        return
    assert head.space is None
