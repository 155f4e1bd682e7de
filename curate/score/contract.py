"""What a scorer is: its needs, and a function from a shard's arrays to columns.

A scorer reads no file of the workspace: the stage hands it what it asks for. Files of its own (weights,
word lists, target sets) are read through ``curate.dataset.external``, and their digests are among its
facts, so that another file under the same name redoes the scores.
"""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from curate.clip.vectors import Stored, Vectors

Modality = Literal["image", "text"]
Columns = Mapping[str, pa.Array | pa.ChunkedArray]
"""Name without the scorer's prefix → (n,)."""
EncodeTexts = Callable[[str, tuple[str, ...]], tuple[Vectors, float]]
"""Alias and prompts → unit vectors float32 (n, dim), full precision, and the model's logit scale."""


@dataclass(frozen=True)
class Shard:
    """What a scorer gets to see of one shard of n samples.

    Attributes:
        name: of the shard; seeds draws that must not depend on anything else.
        samples: ``uid`` and the columns that were asked for, n rows in uid order.
        vectors: (alias, modality) → float16 (n, dim), unit length, memory-mapped; rows without an
            embedding are NaN.
        facts: alias → what ``model.json`` says (``dim``, ``logit_scale``, ``model``, ``weights``, …).
        encode: embeds texts with the very model that made the stored vectors.
        learned: what ``learn`` returned; empty for a scorer that learns nothing.
    """

    name: str
    samples: pa.Table
    vectors: Mapping[tuple[str, Modality], Stored]
    facts: Mapping[str, Mapping[str, Any]]
    encode: EncodeTexts
    learned: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.samples.num_rows)


OpenShard = Callable[[str], AbstractContextManager[Shard]]


class Scorer(ABC):
    """Settings and needs of one scorer. Small and picklable: files are loaded where they are used.

    Attributes:
        columns: sample columns that it reads.
        vectors: stored embeddings that it reads.
        learns: it has to see (a sample of) all shards once before it can score one.
        gpu: it runs a model of its own and asks for a worker with a GPU where there is one.
    """

    columns: tuple[str, ...] = ()
    vectors: tuple[tuple[str, Modality], ...] = ()
    learns: ClassVar[bool] = False
    gpu: ClassVar[bool] = False

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What decides the output bytes: plain JSON values, digests in place of files."""

    def learn(self, shards: Sequence[str], open_shard: OpenShard) -> Mapping[str, npt.NDArray[Any]]:
        """One pass over all shards, in order of their names; only when ``learns``.

        Returns arrays that are stored beside the scores. Memory must not grow with the shards.
        """
        raise NotImplementedError(type(self).__name__)


class ColumnScorer(Scorer):
    """A scorer of columns and stored embeddings: runs on any machine."""

    @abstractmethod
    def score(self, shard: Shard) -> Columns:
        """Scores of the n samples. Null where an input is missing. The same for a sample whatever
        other samples are in the shard, unless the scorer's definition compares samples."""


class Judge(Protocol):
    """Takes the images of one shard one by one."""

    def add(self, row: int, image: Image.Image) -> None:
        """One decoded image, mode RGB, as stored (no resize). Every row at most once."""

    def columns(self) -> Columns:
        """Scores of all n samples; null for rows that were not added (broken or missing images)."""


class PixelScorer(Scorer):
    """A scorer of the stored images. All of a run's pixel scorers share one decode pass."""

    @abstractmethod
    def judge(self, shard: Shard) -> Judge:
        """A fresh judge for the n samples of a shard."""


def blocks(rows: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` rows."""
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def release(vectors: npt.NDArray[Any]) -> None:
    """Give back the memory of what has been read of a mapped array; reading on maps it again.

    Without it the resident memory of a pass over a large shard grows to the size of its file.
    """
    if isinstance(vectors.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        vectors.base.madvise(mmap.MADV_DONTNEED)


def taken(vectors: npt.NDArray[Any], rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """A copy of some rows of an array (n, dim); memory of a mapped file is given back."""
    block = np.array(vectors[rows])
    release(vectors)
    return block


def known_rows(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Which of the rows (n, dim) have an embedding: bool (n,)."""
    return np.asarray(np.isfinite(vectors).all(axis=1))
