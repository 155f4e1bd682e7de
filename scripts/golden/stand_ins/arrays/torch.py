"""Stands for torch: the dozen functions that DataComp's filters call, on numpy; every device is this one."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

long = np.int64
cuda = SimpleNamespace(device_count=lambda: 1, is_available=lambda: True)


class Tensor(np.ndarray):
    """An array that can be sent to where it is."""

    def to(self, device: str) -> Tensor:
        """Itself."""
        return self

    def cpu(self) -> Tensor:
        """Itself."""
        return self

    def float(self) -> Tensor:
        """As float32."""
        return self.astype(np.float32)

    def long(self) -> Tensor:
        """As int64."""
        return self.astype(np.int64)


def no_grad() -> Callable[[Any], Any]:
    return lambda function: function


def from_numpy(array: np.ndarray) -> Tensor:
    return array.view(Tensor)


def zeros(size: int, dtype: Any) -> Tensor:
    return np.zeros(size, dtype).view(Tensor)


def cat(parts: list[Tensor], dim: int) -> Tensor:
    return np.concatenate(parts, axis=dim).view(Tensor)


def einsum(equation: str, *parts: Tensor) -> Tensor:
    if equation != "ik, jk -> ij":
        raise NotImplementedError(equation)
    return parts[0] @ parts[1].T


def argmax(values: Tensor, dim: int) -> Tensor:
    return np.asarray(values).argmax(axis=dim).view(Tensor)


def unique(values: Tensor) -> Tensor:
    return np.unique(values).view(Tensor)


def load(path: str) -> Any:
    """The assets lie as ``.npy``; a target set's are in a dictionary where they are published."""
    array = np.load(path)
    return {"image_features": from_numpy(array)} if "in1k" in path else array
