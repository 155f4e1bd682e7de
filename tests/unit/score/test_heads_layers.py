from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curate.score.heads import Head, Space, head_from_sequential
from curate.score.heads.head import TILE, run
from curate.score.heads.layers import (
    ACTIVATIONS,
    Activation,
    Linear,
    Lookup,
    Scale,
    key_of_text,
    keys_of,
    simplified,
)
from curate.score.heads.spaces import LAION_H14, OPENAI_B32, OPENAI_L14
from tests.unit.score.golden_heads.writers import h14_module, unit


def random_layers(rng: np.random.Generator, dim: int) -> list:
    layers: list = [Lookup(1, np.array([-5, 0, 70_000]), np.array([1.0, 2.0, 3.0]), 9.0)]
    layers += [Scale(rng.normal(size=dim), rng.normal(size=dim))]
    for width in (5, 3, 3, 1):
        layers.append(Linear(rng.normal(size=(width, dim)), rng.normal(size=width)))
        if rng.random() < 0.5:
            layers.append(Activation(str(rng.choice(sorted(ACTIVATIONS)))))
        dim = width
    return layers


@settings(max_examples=80, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6))
def test_key_is_the_printed_number(value: float) -> None:
    key = int(keys_of(np.array([value], np.float32))[0])
    assert key == key_of_text(f"{value:f}")


@pytest.mark.parametrize("value", [0.0000005, 0.0000015, -0.0000005, 0.5, 2.0**-20 * 1.5, 0.1250005, -0.0])
def test_key_of_a_tie_is_the_printed_number(value: float) -> None:
    near = np.float32(value)
    values = np.array([near, np.nextafter(near, np.float32(1)), np.nextafter(near, np.float32(-1))])
    assert keys_of(values).tolist() == [key_of_text(f"{float(v):f}") for v in values]


def test_every_half_has_the_key_of_its_print() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].astype(np.float32)
    assert keys_of(halves).tolist() == [key_of_text(f"{float(v):f}") for v in halves]


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1", "1.5", "0.12345", "0.1234567", "", "a.bcdefg", "١.٢٣٤٥٦٧"]
)
def test_no_number_prints_like_that(text: str) -> None:
    assert key_of_text(text) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_merged_layers_are_the_same_function(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = random_layers(rng, 7)
    x = rng.normal(size=(9, 7))
    np.testing.assert_allclose(run(simplified(layers), x), run(layers, x), rtol=1e-9, atol=1e-11)
    assert len(simplified(layers)) < len(layers)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("relu", nn.ReLU()),
        ("leaky_relu", nn.LeakyReLU()),
        ("gelu", nn.GELU()),
        ("silu", nn.SiLU()),
        ("tanh", nn.Tanh()),
        ("sigmoid", nn.Sigmoid()),
        ("softmax", nn.Softmax(dim=1)),
    ],
)
def test_activations_are_those_of_torch(name: str, module: nn.Module) -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)) * 30
    np.testing.assert_allclose(
        ACTIVATIONS[name](x), module(torch.from_numpy(x)).numpy(), rtol=1e-12, atol=1e-300
    )


def test_scores_are_those_of_torch_and_rows_do_not_see_each_other() -> None:
    module = h14_module()
    head = head_from_sequential(module, LAION_H14)
    vectors = unit(2 * TILE + 7, 1024, 3)
    vectors[5], vectors[TILE] = np.nan, 0
    found = head(vectors)
    assert found.dtype == np.float32
    assert found.shape == (len(vectors), 1)
    assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == [5, TILE]
    some = np.r_[0:5, 6:40, TILE + 1 : TILE + 9, 2 * TILE : 2 * TILE + 7]
    rows = torch.from_numpy(vectors[some].astype(np.float32))
    with torch.no_grad():
        expected = module(nn.functional.normalize(rows)).numpy()
    np.testing.assert_allclose(found[some], expected, rtol=1e-5, atol=1e-6)
    for cut in (1, 3, TILE - 1, TILE, TILE + 5):
        again = np.concatenate([head(vectors[:cut]), head(vectors[cut:])])
        assert np.array_equal(again, found, equal_nan=True)
    assert np.array_equal(head(vectors[::-1])[::-1], found, equal_nan=True)
    assert head(vectors[:0]).shape == (0, 1)


def test_stored_input_is_taken_as_it_is() -> None:
    layer = Linear(np.ones((1, 4)), np.zeros(1))
    vectors = np.array([[3.0, 0, 4, 0]], np.float16)
    assert Head("own", (layer,), None, "stored")(vectors)[0, 0] == 7.0
    assert Head("own", (layer,), None)(vectors)[0, 0] == np.float32(1.4)


def test_an_overflow_is_no_score() -> None:
    head = Head("own", (Linear(np.full((1, 2), 1e300), np.zeros(1)),), None)
    assert np.isnan(head(np.array([[1.0, 0]], np.float16))).all()


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (
            (Linear(np.ones((2, 3)), np.zeros(2)), Linear(np.ones((1, 3)), np.zeros(1))),
            "layer 1 .linear. does not",
        ),
        ((Linear(np.ones((1, 3)), np.zeros(2)),), "layer 0"),
        ((Linear(np.full((1, 3), np.nan), np.zeros(1)),), "NaN"),
        (
            (Lookup(3, np.array([1]), np.array([1.0]), 0.0), Linear(np.ones((1, 3)), np.zeros(1))),
            "layer 0 .lookup",
        ),
        (
            (Lookup(0, np.array([2, 1]), np.ones(2), 0.0), Linear(np.ones((1, 3)), np.zeros(1))),
            "layer 0 .lookup",
        ),
        ((Scale(np.ones(2), np.ones(2)), Linear(np.ones((1, 3)), np.zeros(1))), "layer 1"),
        ((Activation("relu"),), "no layer that says"),
        ((Linear(np.ones((2, 3)), np.zeros(2)),), "2 outputs"),
    ],
)
def test_layers_that_do_not_fit(layers: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Head("own", layers, None)


@pytest.mark.parametrize(
    ("space", "model", "tag", "made"),
    [
        (OPENAI_L14, "ViT-L-14", "openai", True),
        (OPENAI_L14, "ViT-L-14-quickgelu", "openai", True),
        (OPENAI_L14, "ViT-L/14", "OpenAI", True),
        (OPENAI_L14, "hf-hub:timm/vit_large_patch14_clip_224.openai", None, True),
        (OPENAI_L14, "ViT-L-14-336", "openai", False),
        (OPENAI_L14, "ViT-L-14", "laion2b_s32b_b82k", False),
        (OPENAI_L14, "ViT-L-14", "/models/openai", False),
        (OPENAI_L14, "ViT-L-14", None, False),
        (OPENAI_B32, "ViT-B-32", "openai", True),
        (OPENAI_B32, "ViT-B-16", "openai", False),
        (OPENAI_B32, "demo", None, False),
        (LAION_H14, "ViT-H-14", "laion2b_s32b_b79k", True),
        (LAION_H14, "hf-hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K", None, True),
        (Space("demo", None), "demo", None, True),
        (Space("demo", None), "demo", "x", False),
    ],
)
def test_space_is_told_by_architecture_and_weights(
    space: Space, model: str, tag: str | None, made: bool
) -> None:
    assert space.made({"model": model, "pretrained": tag, "dim": 1}) is made
