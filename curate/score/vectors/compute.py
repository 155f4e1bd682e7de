"""Blocks of stored vectors as tensors, and the best match of each row among other vectors.

Sizes of blocks are constants and torch is held to one thread: float32 sums round differently in other
blocks or on other numbers of threads, and the same shard has to give the same bytes. What is written
of a best match is computed again in float64, where the dot product of two stored (float16) vectors is
exact: both are multiples of 2**-24, so 53 bits hold every partial sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from curate.score.contract import blocks, copy_rows

ROWS = 8192
"""Rows of a shard that are compared at once."""
COLS = 4096
"""Vectors that they are compared with at once: a tile has ROWS * COLS * 4 bytes = 128 MiB."""
SLACK = 1e-4
"""More than what float32 may be wrong by in the inner product of two unit vectors."""


def row_blocks(
    vectors: npt.NDArray[np.floating], device: torch.device, size: int = ROWS
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Stored vectors (n, dim) block by block.

    Yields:
        The slice; float32 (b, dim) on the device, zero where there is no embedding; bool (b,): which
        rows have one.
    """
    for part in blocks(len(vectors), size):
        rows, known = to_tensor(vectors, part, device)
        yield part, rows, known


def to_tensor(
    vectors: npt.NDArray[np.floating], part: slice, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """One block: float32 (b, dim), zero where there is no embedding, and bool (b,)."""
    block = torch.from_numpy(copy_rows(vectors, part)).to(device).to(torch.float32)
    known = torch.isfinite(block).all(dim=1)
    if not bool(known.all()):
        block[~known] = 0
    return block, known


@dataclass(frozen=True)
class Chunk:
    """Some of the vectors that rows are compared with.

    Attributes:
        first: number of the first one, counted over all chunks.
        vectors: float32 (m, dim).
        usable: bool (m,), or None when all are.
        offset: float32 (m,) that is added to inner products before they are compared, or None.
    """

    first: int
    vectors: torch.Tensor
    usable: torch.Tensor | None = None
    offset: torch.Tensor | None = None


def best_match(
    rows: torch.Tensor, chunks: Iterable[Chunk], absolute: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The vector with which each row has the largest inner product (plus the offset).

    Args:
        rows: float32 (n, dim).
        chunks: what to compare with.
        absolute: compare absolute values.

    Returns:
        The inner product without its sign when ``absolute``, with the offset when there is one,
        float64 (n,), -inf where there was nothing to compare with; number of the vector, int64 (n,),
        -1 there. Of equals the first.
    """
    best = torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=rows.device)
    number = torch.full((len(rows),), -1, dtype=torch.int64, device=rows.device)
    for chunk in chunks:
        if not len(chunk.vectors) or (chunk.usable is not None and not bool(chunk.usable.any())):
            continue
        tile = rows @ chunk.vectors.T
        if absolute:
            tile.abs_()
        if chunk.offset is not None:
            tile += chunk.offset
        if chunk.usable is not None:
            tile[:, ~chunk.usable] = -torch.inf
        value, column = tile.max(dim=1)
        near = (value.double() > best - SLACK).nonzero()[:, 0]
        column = column[near]
        exact = (rows[near].double() * chunk.vectors[column].double()).sum(dim=1)
        if absolute:
            exact.abs_()
        if chunk.offset is not None:
            exact += chunk.offset[column]
        better = exact > best[near]
        best[near[better]] = exact[better]
        number[near[better]] = column[better] + chunk.first
    return best, number


def floats(values: npt.NDArray[np.floating], missing: npt.NDArray[np.bool_]) -> pa.Array:
    """Values (n,) as float32, null where they are missing."""
    return pa.array(np.where(missing, 0, values).astype(np.float32), pa.float32(), mask=missing)
