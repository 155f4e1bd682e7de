"""A head: layers on one embedding, with what is known about where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from curate.score.contract import blocks, copy_rows
from curate.score.heads.layers import Doubles, Layer, Linear, Lookup, Scale, out_dim, simplified
from curate.score.heads.spaces import Space

TILE = 1_024
"""Rows of every matrix product. Always the same shape, the last one padded, because a BLAS may round
differently by the number of rows: so a score depends on no block size."""


@dataclass(frozen=True)
class Head:
    """Layers and what their file says about them.

    Attributes:
        kind: what was recognised, for messages.
        layers: applied one after the other.
        space: the CLIP it was trained on; None when the file does not say.
        input: `unit`: vectors are made unit length again (stored ones are rounded to float16).
            `stored`: taken as they are, for heads that look values up by their decimals.
        outputs: a name for each output.
    """

    kind: str
    layers: tuple[Layer, ...]
    space: Space | None
    input: Literal["unit", "stored"] = "unit"
    outputs: tuple[str, ...] = ("score",)

    def __post_init__(self) -> None:
        count = out_dim(self.layers, self.dim)
        if count != len(self.outputs) or len(set(self.outputs)) < count:
            raise ValueError(f"{count} outputs, but the names {list(self.outputs)}")

    @property
    def dim(self) -> int:
        """Dimensions of the input; ValueError when no layer says."""
        for layer in self.layers:
            if isinstance(layer, Linear) and layer.weight.ndim == 2:
                return int(layer.weight.shape[1])
            if isinstance(layer, Scale) and layer.scale.ndim == 1:
                return len(layer.scale)
        raise ValueError("no layer that says how many dimensions it takes")

    @cached_property
    def _fast(self) -> list[Layer]:
        return simplified(self.layers)

    def __call__(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Vectors (n, dim) → scores (n, outputs), float32; NaN for vectors that are NaN or zero.

        Computed in float64, in products of ``TILE`` rows.
        """
        out = np.full((len(vectors), len(self.outputs)), np.nan, np.float32)
        for part in blocks(len(vectors), TILE):
            block = copy_rows(vectors, part)
            # By way of float32: numpy turns float16 into float64 one number at a time.
            out[part] = self._tile(block.astype(np.float32) if block.dtype == np.float16 else block)
        return out

    def _tile(self, block: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        x = np.zeros((TILE, self.dim))
        x[: len(block)] = block
        lengths = np.sqrt((x * x).sum(axis=1))
        known = np.isfinite(lengths) & (lengths > 0)
        x[~known] = 0.0
        if self.input == "unit":
            x /= np.where(known, lengths, 1.0)[:, None]
        scores = run(self._fast, x)
        with np.errstate(over="ignore"):
            result = np.where(known[:, None], scores, np.nan).astype(np.float32)
        result[np.isinf(result)] = np.nan
        return result[: len(block)]


def run(layers: Sequence[Layer], x: Doubles) -> Doubles:
    """Layers one after the other: (n, in) → (n, out); ``x`` itself is left alone."""
    x = x.copy()
    for layer in layers:
        x = layer(x)
    return x


def stored_input(layers: Sequence[Layer]) -> Literal["unit", "stored"]:
    """Heads with look-ups want the decimals that were stored."""
    return "stored" if any(isinstance(layer, Lookup) for layer in layers) else "unit"
