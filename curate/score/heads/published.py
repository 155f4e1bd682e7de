"""Published heads, told by the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from curate.score.heads.head import Head, stored_input
from curate.score.heads.layers import Activation, Doubles, Layer, Linear, batch_norm, normalization
from curate.score.heads.spaces import LAION_H14, OPENAI_B16, OPENAI_B32, OPENAI_L14, Space

State = Mapping[str, Doubles]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class PublishedHead:
    """A published architecture.

    Attributes:
        space: the CLIP its published weights were trained on.
        shapes: of all its tensors.
        build: tensors → layers, as the published code runs them at inference.
        files: names it was published under.
    """

    space: Space
    shapes: Shapes
    build: Callable[[State], Sequence[Layer]]
    files: tuple[str, ...]


def head_from_state(state: State, name: str, kind: str | None = None) -> Head:
    """The head whose tensors these are.

    Args:
        state: tensors by name.
        name: the file's own name; settles what shapes cannot.
        kind: what the user says it is.

    Raises:
        ValueError: tensors that are not those of a known head, or of several.
    """
    state = _without_wrappers(state)
    shapes = {key: value.shape for key, value in state.items()}
    found = [k for k, known in PUBLISHED.items() if shapes == known.shapes]
    chosen = _choose(found, {k: PUBLISHED[k].files for k in found}, name, kind, _first_tensors(shapes))
    known = PUBLISHED[chosen]
    for key, value in state.items():
        if not np.isfinite(value).all():
            raise ValueError(f"'{key}' holds NaN or infinity")
    return Head(chosen, tuple(known.build(state)), known.space)


def head_from_keras(layers: tuple[Layer, ...], kind: str | None = None) -> Head:
    """LAION's two AutoKeras heads by the widths of their layers; others of a space not known."""
    widths = tuple(layer.weight.shape[0] for layer in layers if isinstance(layer, Linear))
    dim = next(layer.weight.shape[1] for layer in layers if isinstance(layer, Linear))
    found = [k for k, wanted in _KERAS.items() if wanted == (dim, *widths)]
    if kind is not None and kind not in found:
        raise ValueError(f"dense layers {(dim, *widths)}, which are not those of `kind: {kind}`")
    space = PUBLISHED[found[0]].space if found else None
    outputs = ("score",) if widths[-1] == 1 else tuple(str(i) for i in range(widths[-1]))
    return Head(found[0] if found else "keras", layers, space, stored_input(layers), outputs)


def head_from_prompts(vectors: Doubles, name: str, kind: str | None = None) -> Head:
    """Tuned prompt vectors (k, dim), compared with the image by dot product.

    Two: the score is the second's product less the first's, above 0 where the published argmax is 1.
    One: its product. More: each product is an output. Vectors that are not of unit length to 1 % (Q16
    stores them as tuned) are made so, as its classifier does.

    Raises:
        ValueError: not such an array.
    """
    if vectors.ndim == 1:
        vectors = vectors[None]
    if vectors.ndim != 2 or 0 in vectors.shape or not np.isfinite(vectors).all():
        raise ValueError(f"expected finite vectors (prompts, dimensions), got an array {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError("a prompt vector is zero")
    vectors = np.where(np.abs(lengths - 1) < 0.01, vectors, vectors / lengths)
    dim = vectors.shape[1]
    found = [k for k, (space_dim, _) in _PROMPTS.items() if space_dim == dim]
    spaces = {k: _PROMPTS[k][1] for k in found}
    space = None
    if kind is not None or found:
        shape = f"{len(vectors)} vectors of {dim} dimensions"
        chosen = _choose(found, {k: _prompt_files(k) for k in found}, name, kind, shape)
        space = spaces[chosen]
    weight = vectors[1:] - vectors[:1] if len(vectors) == 2 else vectors
    outputs = ("score",) if len(weight) == 1 else tuple(str(i) for i in range(len(weight)))
    return Head("prompts", (Linear(weight, np.zeros(len(weight))),), space, outputs=outputs)


def _choose(
    found: list[str], files: Mapping[str, Sequence[str]], name: str, kind: str | None, what: str
) -> str:
    if kind is not None:
        if kind not in found:
            raise ValueError(f"{what} are not those of `kind: {kind}`")
        return kind
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(
            f"{what} are not those of a head known here; describe its layers in a JSON file beside a "
            "safetensors file (docs/heads.md)"
        )
    named = [k for k in found if name.casefold() in files[k]]
    if len(named) != 1:
        raise ValueError(f"{what} fit several heads; say which one with `kind: {'` or `'.join(found)}`")
    return named[0]


def _without_wrappers(state: State) -> State:
    """Without wrappers' prefixes and counters of batches."""
    for prefix in ("module.", "model."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _first_tensors(shapes: Shapes) -> str:
    some = [f"{key} {tuple(shape)}" for key, shape in list(shapes.items())[:3]]
    return f"its tensors ({', '.join(some)}{', …' if len(shapes) > 3 else ''})"


def _linear(state: State, name: str) -> Linear:
    prefix = f"{name}." if name else ""
    return Linear(state[f"{prefix}weight"], state[f"{prefix}bias"])


def _mlp(names: Sequence[str], between: Sequence[str | None]) -> Callable[[State], list[Layer]]:
    """Linear layers with an activation, or none, after each."""

    def build(state: State) -> list[Layer]:
        out: list[Layer] = []
        for name, activation in zip(names, between, strict=True):
            out.append(_linear(state, name))
            out += [Activation(activation)] if activation else []
        return out

    return build


def _shapes(names: Sequence[str], widths: Sequence[int]) -> dict[str, tuple[int, ...]]:
    out: dict[str, tuple[int, ...]] = {}
    for i, name in enumerate(names):
        prefix = f"{name}." if name else ""
        out[f"{prefix}weight"], out[f"{prefix}bias"] = (widths[i + 1], widths[i]), (widths[i + 1],)
    return out


def _laion_nsfw(space: Space, widths: Sequence[int], files: tuple[str, ...]) -> PublishedHead:
    """LAION's port of its AutoKeras heads: normalisation, then ReLU between, sigmoid after.

    The port leaves the category encoding out, see docs/heads.md. It adds 1e-10 to the deviations; the
    published ones are above 0.01, where a floor is the same.
    """
    names = [f"linear_{i + 1}" for i in range(len(widths) - 1)]
    mlp = _mlp(names, [*["relu"] * (len(names) - 1), "sigmoid"])

    def build(state: State) -> list[Layer]:
        return [normalization(state["norm.mean"], state["norm.variance"], 1e-10), *mlp(state)]

    norms: dict[str, tuple[int, ...]] = {"norm.mean": (widths[0],), "norm.variance": (widths[0],)}
    return PublishedHead(space, norms | _shapes(names, widths), build, files)


def _datacomp() -> PublishedHead:
    """dataset2metadata's classifier: BatchNorm without epsilon, ReLU between, sigmoid after."""
    names = ["dense", "dense1", "dense2", "dense3"]
    widths = [768, 64, 512, 256, 1]
    mlp = _mlp(names, ["relu", "relu", "relu", "sigmoid"])
    statistics = ("running_mean", "running_var", "weight", "bias")

    def build(state: State) -> list[Layer]:
        mean, variance, weight, bias = (state[f"norm.{key}"] for key in statistics)
        return [batch_norm(mean, variance, weight, bias), *mlp(state)]

    norms = {f"norm.{key}": (768,) for key in statistics}
    return PublishedHead(
        OPENAI_L14, norms | _shapes(names, widths), build, ("nsfw_torch.pt", "nsfw-image.pt")
    )


def _sequential(
    numbers: Sequence[int], widths: Sequence[int], between: Sequence[str | None]
) -> PublishedHead:
    names = [f"layers.{i}" for i in numbers]
    return PublishedHead(OPENAI_L14, _shapes(names, widths), _mlp(names, between), ())


def _aesthetic_v1(space: Space, dim: int, name: str) -> PublishedHead:
    return PublishedHead(space, _shapes([""], [dim, 1]), _mlp([""], [None]), (f"sa_0_4_{name}_linear.pth",))


_V2 = (768, 1024, 128, 64, 16, 1)
_H14 = (1024, 1024, 2048, 1024, 256, 128, 16, 1)
_H14_NAMES = [f"layers.{i}" for i in (0, 3, 6, 9, 12, 15, 16)]
_H14_BETWEEN = ["relu"] * 5 + [None, None]

PUBLISHED: dict[str, PublishedHead] = {
    "nsfw_b32": _laion_nsfw(OPENAI_B32, (512, 32, 32, 1), ("clip_vit-b-32_openai_binary_nsfw_head.pth",)),
    "nsfw_l14": _laion_nsfw(
        OPENAI_L14, (768, 64, 512, 256, 1), ("clip_vit-l-14_openai_binary_nsfw_head.pth",)
    ),
    "nsfw_h14": PublishedHead(
        LAION_H14, _shapes(_H14_NAMES, _H14), _mlp(_H14_NAMES, _H14_BETWEEN), ("h14_nsfw.pth",)
    ),
    "nsfw_datacomp": _datacomp(),
    "aesthetic_v1_b32": _aesthetic_v1(OPENAI_B32, 512, "vit_b_32"),
    "aesthetic_v1_b16": _aesthetic_v1(OPENAI_B16, 512, "vit_b_16"),
    "aesthetic_v1_l14": _aesthetic_v1(OPENAI_L14, 768, "vit_l_14"),
    "aesthetic_v2": _sequential((0, 2, 4, 6, 7), _V2, [None] * 5),
    "aesthetic_v2_relu": _sequential((0, 3, 6, 9, 11), _V2, ["relu"] * 4 + [None]),
}
"""Kind → what it looks like."""

_KERAS = {"nsfw_b32": (512, 32, 32, 1), "nsfw_l14": (768, 64, 512, 256, 1)}

_PROMPTS: dict[str, tuple[int, Space]] = {
    "prompts_b32": (512, OPENAI_B32),
    "prompts_b16": (512, OPENAI_B16),
    "prompts_l14": (768, OPENAI_L14),
}


def _prompt_files(kind: str) -> tuple[str, ...]:
    size = kind.rpartition("_")[2]
    return (f"violence_detection_vit_{size[0]}_{size[1:]}.npy",)
