"""Named tensors of PyTorch and safetensors files; code in a pickle is never run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.score.heads.layers import Doubles, doubles

Arrays = Mapping[str, npt.NDArray[Any]]


def read_torch(data: bytes) -> dict[str, Doubles]:
    """A state dict, also inside a Lightning checkpoint.

    Raises:
        ValueError: not a whole file, or one that holds anything but tensors.
    """
    import torch

    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises half a dozen types for a broken file
        raise ValueError(_torch_error(error)) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state:
        raise ValueError(f"holds a {type(state).__name__}, not a state dict")
    out = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or tensor.is_complex() or tensor.is_quantized:
            raise ValueError(f"'{name}' is not a tensor of numbers")
        out[str(name)] = doubles(tensor.detach().to(torch.float64).numpy())
    return out


def _torch_error(error: Exception) -> str:
    words = str(error)
    if "weights_only" in words.casefold() or "Unsupported global" in words:
        return "holds pickled objects, which could run code; only files of plain tensors are loaded"
    first = next((line.strip() for line in words.splitlines() if line.strip()), type(error).__name__)
    return f"not a whole PyTorch file ({first[:160]})"


def read_safetensors(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Tensors as they are stored; bfloat16 as float32.

    Raises:
        ValueError: not a whole file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a whole safetensors file ({str(error)[:160]})") from None
    out: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        out[name] = (
            tensor.float() if tensor.dtype.is_floating_point and tensor.element_size() == 2 else tensor
        ).numpy()
    return out


def compact(array: Doubles) -> npt.NDArray[Any]:
    """float32 when it holds the same numbers, float64 otherwise."""
    narrow = array.astype(np.float32)
    return narrow if np.array_equal(narrow.astype(np.float64), array) else array
