"""What decodes and tokenises beside the model: threads on a CPU, processes beside a GPU.

Threads are enough as long as the model is the slow part. A GPU takes thousands of images a second,
for which one interpreter is too slow; its processes read the shard themselves and write what they make
into shared blocks, so that only names and offsets go back and forth.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from curate.clip.images import ImageError, decode
from curate.clip.model import Clip
from curate.clip.pixels import Preparation
from curate.clip.text import Tokens
from curate.embed.blocks import Address, Block, Blocks

log = logging.getLogger(__name__)

Span = tuple[int, int, int]
"""Row in the block, offset and size of the bytes in the file."""

Target = tuple[Preparation, "Address | npt.NDArray[Any]"]


@dataclass
class Decoders:
    """A pool of threads or processes, and the blocks it writes to."""

    executor: Executor
    blocks: Blocks
    processes: bool

    def prepare(
        self, path: str, spans: Sequence[Span], targets: Sequence[tuple[Preparation, Block]]
    ) -> Future[list[int]]:
        """Decode images of a file once and write them for every preparation; see ``prepare_images``."""
        given = [(p, block.array if block.address is None else block.address) for p, block in targets]
        return self.executor.submit(prepare_images, path, list(spans), given)

    def tokenize(self, clip: Clip, texts: Sequence[str]) -> Future[Tokens]:
        """Texts → tokens (n, context length)."""
        if self.processes:
            return self.executor.submit(_tokenize_by_name, clip.tokenizer_name, list(texts))
        return self.executor.submit(_tokenize, clip.tokenizer, list(texts))


def prepare_images(path: str, spans: Sequence[Span], targets: Sequence[Target]) -> list[int]:
    """Decode images and write each, prepared, to its row of every target.

    Returns:
        The rows whose image does not decode; they are zero.
    """
    arrays = [(p, to.attach() if isinstance(to, Address) else to) for p, to in targets]
    broken = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for row, offset, size in spans:
            try:
                image = decode(os.pread(descriptor, size, offset))
                for preparation, array in arrays:
                    array[row] = preparation.prepare(image)
            except ImageError:
                for _, array in arrays:
                    array[row] = 0
                broken.append(row)
    finally:
        os.close(descriptor)
    return broken


def _tokenize(tokenizer: Any, texts: list[str]) -> Tokens:
    return np.asarray(tokenizer(texts), np.int64)


def _tokenize_by_name(name: str, texts: list[str]) -> Tokens:
    return _tokenize(_tokenizer(name), texts)


@functools.lru_cache(maxsize=4)
def _tokenizer(name: str) -> Any:
    import open_clip

    return open_clip.get_tokenizer(name)


_pools: dict[tuple[bool, int], Decoders] = {}
_starting = threading.Lock()


def decoders(device: torch.device, wanted: int | None) -> Decoders:
    """The decoders of this process for models on a device; made once, kept until it ends."""
    processes = device.type == "cuda" and _may_have_processes()
    count = wanted or (_cores_per_gpu() if processes else 2)
    with _starting:
        pool = _pools.get((processes, count))
        if pool is None:
            if device.type == "cuda" and not processes:
                log.warning("images are decoded in threads: this process may not start others")
            executor = _processes(count) if processes else ThreadPoolExecutor(count, "decode")
            pool = Decoders(executor, Blocks(processes, device.type == "cuda"), processes)
            _pools[(processes, count)] = pool
        return pool


def forget_all() -> None:
    """After a decoding process has died: the next call of ``decoders`` starts new ones."""
    with _starting:
        _pools.clear()


def _may_have_processes() -> bool:
    """A daemonic process (a Dask worker by default) may not start others; memfd is Linux's."""
    return hasattr(os, "memfd_create") and not multiprocessing.current_process().daemon


def _processes(count: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["curate.embed.decoders", "open_clip"])
    return ProcessPoolExecutor(count, context, _start_process)


def _start_process() -> None:
    """One thread each, and an end together with the parent, however that ends."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _cores_per_gpu() -> int:
    """The cores this process may use, shared among the machine's GPUs; one is left for the model."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, _gpus()) - 1)


def _gpus() -> int:
    """GPUs of the machine; a Dask worker of ours sees only its own."""
    told = os.environ.get("CURATE_GPUS")
    return int(told) if told else torch.cuda.device_count()
