"""Where a scorer computes with torch, and on how many threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from curate.config.scorers.base import Device
from curate.errors import UserError

if TYPE_CHECKING:
    import torch


def device_of(wanted: Device, place: str) -> torch.device:
    """The device that a scorer's settings ask for.

    Args:
        wanted: ``auto`` is CUDA where there is any.
        place: the scorer's key in the config, for messages.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    import torch

    available = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError(f"{place}.device: `cuda`, but torch finds no CUDA here; use `auto` or `cpu`")
    return torch.device("cuda" if available else "cpu")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch's CPU arithmetic on one thread, for the time of the context: sums are added in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
