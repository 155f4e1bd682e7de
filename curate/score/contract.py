"""What a scorer is: its needs, and a function from a shard's arrays to columns.

A scorer reads no file of the workspace: the stage hands it what it asks for. Files of its own (weights,
word lists, target sets) are read through ``curate.dataset.external``, and their digests are among its
facts, so that another file under the same name redoes the scores.
"""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.clip.vectors import Stored, Vectors
from curate.config.scorers.base import Modality, ScorerSettings
from curate.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

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

SettingsT = TypeVar("SettingsT", bound=ScorerSettings)


class Scorer(ABC, Generic[SettingsT]):
    """The meaning of one scorer of a config. Small and picklable: files are loaded where they are used.

    Args:
        name: of the scorer; its columns are stored as ``<name>_…``.
        settings: its section of the config.

    Attributes:
        code_version: of this kind: raise it when the same settings and inputs give other bytes than before.
            It redoes the scores of this kind and nothing else.
        columns: sample columns that it reads.
        vectors: stored embeddings that it reads.
        outputs: names without the scorer's prefix and types of all columns that it makes, in order; None
            when only the loaded model knows. What it makes has to be just that.
        learns: it has to see (a sample of) all shards once before it can score one.
        gpu: it runs a model of its own and asks for a worker with a GPU where there is one.
        place: its key in the config, for messages.
    """

    code_version: ClassVar[int] = 1
    columns: tuple[str, ...] = ()
    vectors: tuple[tuple[str, Modality], ...] = ()
    outputs: pa.Schema | None = None
    learns: bool = False
    gpu: bool = False

    def __init__(self, name: str, settings: SettingsT) -> None:
        self.settings = settings
        self.place = f"score.scorers.{name}"

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the output bytes: plain JSON values, digests in place of files."""
        return self.settings.facts()

    def learn(self, shards: Sequence[str], open_shard: OpenShard) -> Mapping[str, npt.NDArray[Any]]:
        """One pass over all shards, in order of their names; only when ``learns``.

        Returns arrays that are stored beside the scores. Memory must not grow with the shards.
        """
        raise NotImplementedError(type(self).__name__)


class ColumnScorer(Scorer[SettingsT]):
    """A scorer of columns and stored embeddings: runs on any machine."""

    @abstractmethod
    def score(self, shard: Shard) -> Columns:
        """Scores of the n samples. Null where an input is missing. The same for a sample whatever
        other samples are in the shard, unless the scorer's definition compares samples."""


class RowScorer(ColumnScorer[SettingsT]):
    """A scorer whose columns follow from other columns of the same row.

    When its settings say ``row_local``, its columns are also there where published tables are filtered as
    they are, computed when they are read. ``columns`` and ``outputs`` have to be given.
    """

    outputs: pa.Schema

    @abstractmethod
    def compute(self, samples: pa.Table, wanted: Collection[str]) -> Columns:
        """The columns of n samples, (n,) each; null where an input is missing.

        Args:
            samples: the columns that it reads.
            wanted: names of the outputs that are asked for; it may leave out the others.
        """

    def score(self, shard: Shard) -> Columns:
        """All outputs."""
        return self.compute(shard.samples, self.outputs.names)


class ImageScores(Protocol):
    """Scores of the images of one shard, which are shown one by one."""

    def add(self, row: int, image: Image.Image) -> None:
        """One decoded image, mode RGB, as stored (no resize). Every row at most once."""

    def columns(self) -> Columns:
        """Scores of all n samples; null for rows that were not added (broken or missing images)."""


class PixelScorer(Scorer[SettingsT]):
    """A scorer of the stored images. All of a run's pixel scorers share one decode pass."""

    @abstractmethod
    def start(self, shard: Shard) -> ImageScores:
        """Begin with the n samples of a shard, none of which has been shown yet."""


def make_scorer(name: str, settings: ScorerSettings) -> Scorer[Any]:
    """The scorer that a section of the config describes.

    Raises:
        UserError: a file it names is missing or is not what it should be, or its implementation cannot be
            loaded.
    """
    kind = settings.load_implementation()
    if not (isinstance(kind, type) and issubclass(kind, ColumnScorer | PixelScorer)):
        raise ConfigError(
            f"'{settings.kind}': {settings.implementation} is no ColumnScorer and no PixelScorer"
        )
    if lacking := sorted(getattr(kind, "__abstractmethods__", ())):
        raise ConfigError(f"'{settings.kind}': {settings.implementation} has no {', '.join(lacking)}")
    return kind(name, settings)


def cosine(name: str) -> pa.Field:
    """Declares a column of cosines: pages show within [-1, 1] what rounding has put a little beyond."""
    return pa.field(name, pa.float32(), metadata={"measure": "cosine"})


def is_cosine(field: pa.Field) -> bool:
    """Whether a column was declared by ``cosine``."""
    return bool((field.metadata or {}).get(b"measure") == b"cosine")


def blocks(rows: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` rows."""
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def score_blocks(rows: int, size: int, score: Callable[[slice], Columns]) -> dict[str, pa.Array]:
    """Columns of n rows, of which only ``size`` are scored at once; of no rows, the columns without any."""
    parts = [score(part) for part in blocks(rows, size) or [slice(0, 0)]]
    tables = pa.concat_tables([pa.table(part) for part in parts])
    return {name: tables[name].combine_chunks() for name in tables.column_names}


def release_pages(vectors: npt.NDArray[Any]) -> None:
    """Give back the memory of what has been read of a mapped array; reading on maps it again.

    Without it the resident memory of a pass over a large shard grows to the size of its file.
    """
    if isinstance(vectors.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        vectors.base.madvise(mmap.MADV_DONTNEED)


def copy_rows(vectors: npt.NDArray[Any], rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """A copy of some rows of an array (n, dim); the memory of a mapped file is given back."""
    block = np.array(vectors[rows])
    release_pages(vectors)
    return block


def finite_rows(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Which of the rows (n, dim) have an embedding: bool (n,)."""
    return np.asarray(np.isfinite(vectors).all(axis=1))
