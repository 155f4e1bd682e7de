"""This program's own file format: tensors in a safetensors file, layers in a JSON file beside it.

For any head that was not published in a form known here, and to keep one that was published as a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from curate.config.base import Settings
from curate.score.heads.formats.tensors import compact
from curate.score.heads.head import Head, stored_input
from curate.score.heads.layers import (
    Activation,
    Layer,
    Linear,
    Lookup,
    Scale,
    batch_norm,
    doubles,
)
from curate.score.heads.spaces import Space

Tensors = Mapping[str, npt.NDArray[Any]]


class _Linear(Settings):
    type: Literal["linear"]
    weight: str
    bias: str | None = None


class _Scale(Settings):
    type: Literal["scale"]
    scale: str
    shift: str


class _Normalize(Settings):
    type: Literal["normalize"]
    mean: str
    variance: str
    weight: str | None = None
    bias: str | None = None
    epsilon: float = Field(0.0, ge=0)


class _Lookup(Settings):
    type: Literal["lookup"]
    dim: int = Field(ge=0)
    keys: str
    values: str
    default: float = 0.0


class _Activation(Settings):
    type: Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "softmax"]


_Layer = Annotated[_Linear | _Scale | _Normalize | _Lookup | _Activation, Field(discriminator="type")]


class _Space(Settings):
    model: str
    pretrained: str | None = None
    same: tuple[str, ...] = ()


class _Sidecar(Settings):
    format: Literal["curate-head-1"]
    description: str = ""
    space: _Space | None = None
    input: Literal["unit", "stored"] = "unit"
    outputs: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], ...] = ("score",)
    layers: tuple[_Layer, ...] = Field(min_length=1)


def sidecar_path(url: str) -> str:
    """Where the JSON of a safetensors file lies."""
    return url.removesuffix(".safetensors") + ".json"


def head_from_sidecar(text: bytes, tensors: Tensors) -> Head:
    """The head that a JSON file describes.

    Raises:
        ValueError: not such a file, or tensors that are missing or do not fit.
    """
    try:
        described = _Sidecar.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{place + ': ' if place else ''}{first['msg'][0].lower() + first['msg'][1:]}"
        ) from None
    try:
        layers = tuple(_layer(one, tensors) for one in described.layers)
    except KeyError as error:
        raise ValueError(
            f"the tensor '{error.args[0]}' is missing; there are {', '.join(sorted(tensors))}"
        ) from None
    told = described.space
    space = None if told is None else Space(told.model, told.pretrained, told.same)
    return Head("own", layers, space, described.input, described.outputs)


def _layer(one: _Linear | _Scale | _Normalize | _Lookup | _Activation, tensors: Tensors) -> Layer:
    if isinstance(one, _Activation):
        return Activation(one.type)
    if isinstance(one, _Linear):
        weight = doubles(tensors[one.weight])
        return Linear(weight, np.zeros(len(weight)) if one.bias is None else doubles(tensors[one.bias]))
    if isinstance(one, _Scale):
        return Scale(doubles(tensors[one.scale]), doubles(tensors[one.shift]))
    if isinstance(one, _Lookup):
        return Lookup(one.dim, tensors[one.keys].astype(np.int64), doubles(tensors[one.values]), one.default)
    factor, shift = (None if name is None else tensors[name] for name in (one.weight, one.bias))
    return batch_norm(tensors[one.mean], tensors[one.variance], factor, shift, one.epsilon)


def save_head(head: Head, path: str | Path, description: str = "") -> tuple[Path, Path]:
    """Write any head in our own format; the same head gives the same bytes.

    Args:
        head: from ``load_head`` or ``head_from_sequential``.
        path: of the safetensors file to write; the JSON file goes beside it.
        description: kept in the JSON file.

    Returns:
        The two files.
    """
    from safetensors.numpy import save

    if not str(path).endswith(".safetensors"):
        raise ValueError(f"{path}: the name must end with .safetensors")
    tensors: dict[str, npt.NDArray[Any]] = {}
    layers: list[dict[str, Any]] = []
    for number, layer in enumerate(head.layers):
        if isinstance(layer, Activation):
            layers.append({"type": layer.name})
            continue
        entry: dict[str, Any] = {"type": type(layer).__name__.lower()}
        for key, value in vars(layer).items():
            if isinstance(value, np.ndarray):
                name = f"{number}.{key}"
                tensors[name] = compact(value) if value.dtype == np.float64 else value
                entry[key] = name
            else:
                entry[key] = value
        layers.append(entry)
    space = head.space and {
        "model": head.space.model,
        "pretrained": head.space.pretrained,
        "same": head.space.hubs,
    }
    told = {"format": "curate-head-1", "description": description, "space": space, "input": head.input}
    weights, described = Path(path), Path(sidecar_path(str(path)))
    weights.write_bytes(save(tensors))
    text = json.dumps({**told, "outputs": head.outputs, "layers": layers}, indent=1, ensure_ascii=False)
    described.write_text(text + "\n", "utf-8")
    return weights, described


_TORCH_ACTIVATIONS = {
    "ReLU": "relu", "LeakyReLU": "leaky_relu", "GELU": "gelu", "SiLU": "silu", "Tanh": "tanh",
    "Sigmoid": "sigmoid", "Softmax": "softmax",
}  # fmt: skip


def head_from_sequential(module: Any, space: Space | None, outputs: Sequence[str] = ("score",)) -> Head:
    """A head from a ``torch.nn.Sequential`` that the caller has trained or loaded.

    Linear, BatchNorm1d, Dropout, Identity and activations with torch's default arguments.

    Raises:
        ValueError: a module of another kind.
    """
    layers: list[Layer] = []
    for name, part in module.named_children():
        kind = type(part).__name__
        state = {key: value.detach().cpu().double().numpy() for key, value in part.state_dict().items()}
        if kind == "Linear":
            weight = doubles(state["weight"])
            layers.append(Linear(weight, doubles(state.get("bias", np.zeros(len(weight))))))
        elif kind == "BatchNorm1d" and "running_mean" in state:
            statistics = (state["running_mean"], state["running_var"], state.get("weight"), state.get("bias"))
            layers.append(batch_norm(*statistics, epsilon=part.eps))
        elif kind in _TORCH_ACTIVATIONS and _is_default(part):
            layers.append(Activation(_TORCH_ACTIVATIONS[kind]))
        elif kind not in ("Dropout", "Identity"):
            raise ValueError(f"'{name}' is a {part}, which the format has no layer for")
    return Head("own", tuple(layers), space, stored_input(layers), tuple(outputs))


def _is_default(part: Any) -> bool:
    slope, shape, dim = (getattr(part, name, None) for name in ("negative_slope", "approximate", "dim"))
    return slope in (None, 0.01) and shape in (None, "none") and dim in (None, 1, -1)
