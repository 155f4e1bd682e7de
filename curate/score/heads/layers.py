"""The layers of a head, on float64: small enough that precision costs nothing worth saving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Doubles: TypeAlias = npt.NDArray[np.float64]
Keys: TypeAlias = npt.NDArray[np.int64]

MINUS_ZERO = -(2**62)
"""Key of a category that is written ``-0.000000``, which is another string than ``0.000000``."""


@dataclass(frozen=True)
class Linear:
    """``x @ weight.T + bias``; weight (out, in), bias (out,)."""

    weight: Doubles
    bias: Doubles

    def __call__(self, x: Doubles) -> Doubles:
        """(n, in) → (n, out)."""
        return np.asarray(x @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Scale:
    """``x * scale + shift`` per dimension: normalisation by stored statistics; both (dim,)."""

    scale: Doubles
    shift: Doubles

    def __call__(self, x: Doubles) -> Doubles:
        """(n, dim) → (n, dim)."""
        return x * self.scale + self.shift


@dataclass(frozen=True)
class Lookup:
    """Replaces one dimension by the number of its value in a list of known values.

    AutoKeras takes a dimension with few distinct values for a category: it prints the float32 with six
    decimals and looks the string up. A key is that string without its point, as an integer.

    Attributes:
        dim: the dimension.
        keys: sorted, distinct, int64 (k,); see ``keys_of``.
        values: what each key becomes, (k,).
        default: what a value that is not listed becomes.
    """

    dim: int
    keys: Keys
    values: Doubles
    default: float

    def __call__(self, x: Doubles) -> Doubles:
        """(n, dim) → the same array, changed in place: a copy for each of several look-ups would cost more
        than the layers behind them."""
        found = np.full(len(x), self.default)
        if len(self.keys):
            keys = keys_of(x[:, self.dim].astype(np.float32))
            at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            hit = self.keys[at] == keys
            found[hit] = self.values[at[hit]]
        x[:, self.dim] = found
        return x


@dataclass(frozen=True)
class Activation:
    """One of ``ACTIVATIONS`` by name."""

    name: str

    def __call__(self, x: Doubles) -> Doubles:
        """(n, dim) → (n, dim)."""
        return ACTIVATIONS[self.name](x)


Layer: TypeAlias = Linear | Scale | Lookup | Activation


def keys_of(values: npt.NDArray[np.float32]) -> Keys:
    """The six-decimal print of each float32, without its point, as an integer.

    24 bits times 10**6 fit into a float64, so the product is exact and rounding it half to even is what
    ``printf("%f")`` does.
    """
    keys = np.rint(values.astype(np.float64) * 1e6)
    out = np.clip(keys, -(2.0**61), 2.0**61).astype(np.int64)
    out[(keys == 0) & np.signbit(values)] = MINUS_ZERO
    return out


def key_of_text(text: str) -> int | None:
    """Key of a category as it is written; None for one that no number prints as."""
    sign, digits = text.startswith("-"), text.removeprefix("-")
    whole, _, decimals = digits.partition(".")
    if len(decimals) != 6 or not (whole + decimals).isascii() or not (whole + decimals).isdigit():
        return None
    key = int(whole + decimals)
    if key >= 2**61:
        return None
    if key == 0 and sign:
        return MINUS_ZERO
    return -key if sign else key


def out_dim(layers: Sequence[Layer], dim: int) -> int:
    """Dimensions of the output of layers on inputs of ``dim``.

    Raises:
        ValueError: a layer that does not fit the one before, or that holds NaN or infinity.
    """
    for number, layer in enumerate(layers):
        arrays: tuple[Doubles, ...]
        if isinstance(layer, Linear):
            wanted: int | None = layer.weight.shape[1] if layer.weight.ndim == 2 else None
            fits = wanted == dim and layer.bias.shape == (layer.weight.shape[0],)
            arrays, after = (layer.weight, layer.bias), layer.weight.shape[0]
        elif isinstance(layer, Scale):
            fits, arrays, after = (
                layer.scale.shape == layer.shift.shape == (dim,),
                (layer.scale, layer.shift),
                dim,
            )
        elif isinstance(layer, Lookup):
            fits = 0 <= layer.dim < dim and layer.keys.shape == layer.values.shape == (len(layer.keys),)
            fits = fits and bool((np.diff(layer.keys) > 0).all())
            arrays, after = (layer.values, np.asarray(layer.default)), dim
        else:
            fits, arrays, after = layer.name in ACTIVATIONS, (), dim
        if not fits:
            raise ValueError(
                f"layer {number} ({type(layer).__name__.lower()}) does not take {dim} dimensions"
            )
        if not all(np.isfinite(a).all() for a in arrays):
            raise ValueError(f"layer {number} ({type(layer).__name__.lower()}) holds NaN or infinity")
        dim = after
    return dim


def simplified(layers: Sequence[Layer]) -> list[Layer]:
    """The same function with affine neighbours made one, where that is less work.

    A head without activations (aesthetic v2) becomes one dot product.
    """
    out: list[Layer] = []
    for layer in layers:
        out.append(layer)
        while len(out) > 1 and (merged := _merged(out[-2], out[-1])) is not None:
            out[-2:] = [merged]
    return out


def _merged(first: Layer, second: Layer) -> Layer | None:
    if isinstance(first, Scale) and isinstance(second, Linear):
        return Linear(second.weight * first.scale, second.bias + second.weight @ first.shift)
    if isinstance(first, Linear) and isinstance(second, Linear):
        weight = second.weight @ first.weight
        if weight.size <= first.weight.size + second.weight.size:
            return Linear(weight, second.bias + second.weight @ first.bias)
    return None


def _sigmoid(x: Doubles) -> Doubles:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small))


def _softmax(x: Doubles) -> Doubles:
    weights = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _gelu(x: Doubles) -> Doubles:
    import torch

    return np.asarray(torch.nn.functional.gelu(torch.from_numpy(np.ascontiguousarray(x))).numpy())


ACTIVATIONS: dict[str, Callable[[Doubles], Doubles]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "gelu": _gelu,
    "silu": lambda x: x * _sigmoid(x),
    "tanh": lambda x: np.tanh(x),
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}
"""Name → function, as torch defines them with their default arguments."""


def doubles(array: Any) -> Doubles:
    """A C-ordered float64 copy."""
    return np.array(array, dtype=np.float64, order="C")


def batch_norm(mean: Any, variance: Any, weight: Any = None, bias: Any = None, epsilon: float = 0.0) -> Scale:
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias`` by stored statistics.

    Raises:
        ValueError: a variance that is negative, or zero without an epsilon.
    """
    under = doubles(variance) + epsilon
    if not (under > 0).all():
        raise ValueError("a variance is not positive")
    scale = (1.0 if weight is None else doubles(weight)) / np.sqrt(under)
    return Scale(scale, (0.0 if bias is None else doubles(bias)) - doubles(mean) * scale)


def normalization(mean: Any, variance: Any, floor: float) -> Scale:
    """``(x - mean) / max(sqrt(variance), floor)``, Keras's Normalization (floor 1e-7).

    Raises:
        ValueError: a negative variance.
    """
    if not (doubles(variance) >= 0).all():
        raise ValueError("a variance is negative")
    scale = 1.0 / np.maximum(np.sqrt(doubles(variance)), floor)
    return Scale(scale, -doubles(mean) * scale)
