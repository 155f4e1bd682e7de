"""Room for prepared images that the processes which decode can write to."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_serial = itertools.count()

_KEPT = 32
"""Blocks of others that a process keeps mapped."""


@dataclass(frozen=True)
class Address:
    """Where another process finds a block: an anonymous file of its owner's.

    No name in ``/dev/shm``, whose size containers limit, and nothing that a kill could leave behind.
    """

    owner: int
    descriptor: int
    serial: int
    shape: tuple[int, ...]
    dtype: str

    def attach(self) -> npt.NDArray[Any]:
        """The same memory in this process."""
        with _lock:
            if self in _attached:
                _attached.move_to_end(self)
            else:
                _attached[self] = _mapped(f"/proc/{self.owner}/fd/{self.descriptor}", self.shape, self.dtype)
                while len(_attached) > _KEPT:
                    _attached.popitem(last=False)
            return _attached[self]


_attached: OrderedDict[Address, npt.NDArray[Any]] = OrderedDict()
_lock = threading.Lock()


class Block:
    """An array (rows, height, width, 3) in memory that can be shared, pinned where there is CUDA."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, shared: bool, pinned: bool) -> None:
        self.address: Address | None = None
        if not shared:
            self.array: npt.NDArray[Any] = np.zeros(shape, dtype)
            return
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        descriptor = os.memfd_create("curate-images")
        os.ftruncate(descriptor, size)
        self.address = Address(os.getpid(), descriptor, next(_serial), shape, np.dtype(dtype).str)
        self.array = _mapped(f"/proc/self/fd/{descriptor}", shape, self.address.dtype)
        if pinned:
            _pin(self.array)


class Blocks:
    """Blocks that are used again and again, by as many shards as are worked on at once."""

    def __init__(self, shared: bool, pinned: bool) -> None:
        self._shared = shared
        self._pinned = pinned
        self._free: dict[tuple[Any, ...], list[Block]] = {}
        self._guard = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Block:
        """A block; what is in it is left over from before."""
        with self._guard:
            free = self._free.setdefault((shape, np.dtype(dtype).str), [])
            if free:
                return free.pop()
        return Block(shape, dtype, self._shared, self._pinned)

    def give_back(self, block: Block) -> None:
        """Let others use it."""
        with self._guard:
            self._free[(block.array.shape, block.array.dtype.str)].append(block)


def _mapped(path: str, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    descriptor = os.open(path, os.O_RDWR)
    try:
        memory = mmap.mmap(descriptor, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    finally:
        os.close(descriptor)
    return np.frombuffer(memory, dtype).reshape(shape)


def _pin(array: npt.NDArray[Any]) -> None:
    """Lock the pages so that the device can fetch them by itself; without it, copies only take longer."""
    import torch

    with contextlib.suppress(RuntimeError, AttributeError):
        torch.cuda.cudart().cudaHostRegister(array.ctypes.data, array.nbytes, 0)  # type: ignore[no-untyped-call]
