"""A few samples of every sort, in memory or committed to a workspace."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from curate.clip.vectors import STORED, Stored, Vectors, write_vectors
from curate.config.models import EmbedSettings, ModelSettings
from curate.config.scorers.base import Modality
from curate.dataset import layout
from curate.dataset.family import IMAGES, Family
from curate.dataset.records import RecordStore
from curate.dataset.uid import shard_of, uid_of
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.engine.engine import run_unit
from curate.engine.plan import make_plan
from curate.engine.stage import Outcome, Stage, Unit
from curate.score.contract import Columns, ColumnScorer, PixelScorer, Scorer, Shard

MODEL = "m"
"""Alias of the one model; it is the demo's CLIP when something is encoded by it."""
EMBED = EmbedSettings(models={MODEL: ModelSettings(model="demo")})

_DIM = 128
_FACTS = {"model": "demo", "dim": _DIM, "weights": STORED, "checkpoint": STORED, "logit_scale": 100.0}
_TEXTS = (
    "a dog on a beach", "Zwei Katzen schlafen auf dem Sofa", "", "   ", "日本語の写真です", "2019-05-04",
    "un chat noir\net un chien", "a very long caption " * 40, "BUY NOW!!! 50% off 😀", "ein Hund im Schnee",
)  # fmt: skip
_EMPTY = (4, 11, 20)


@dataclass(frozen=True)
class Pool:
    """n samples in uid order.

    Attributes:
        samples: ``uid``, ``url``, ``text``, the columns of the image table, and any others.
        images: n decoded images in RGB, None where there is none.
        vectors: image and text embeddings of ``MODEL``, float16 (n, dim), NaN where there is none.
        empty: rows of which nothing is known but the uid.
    """

    samples: pa.Table
    images: Sequence[Image.Image | None]
    vectors: Mapping[Modality, Stored]
    empty: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.samples.num_rows)

    def shard(self, scorer: Scorer[Any], rows: slice, learned: Mapping[str, npt.NDArray[Any]]) -> Shard:
        """What a scorer gets to see of some rows. The embeddings cannot be written to."""
        part = self.samples.slice(rows.start, rows.stop - rows.start)
        vectors: dict[tuple[str, Modality], Stored] = {}
        for _, modality in scorer.vectors:
            vectors[MODEL, modality] = self.vectors[modality][rows]
            vectors[MODEL, modality].flags.writeable = False
        return Shard(
            "00000", part.select(["uid", *scorer.columns]), vectors, {MODEL: _FACTS}, encode, learned
        )

    def learn(self, scorer: Scorer[Any], shards: int = 3) -> Mapping[str, npt.NDArray[Any]]:
        """What a scorer learns of these rows, cut into shards; nothing when it does not learn."""
        cuts = self.cut(shards)

        @contextlib.contextmanager
        def open_shard(name: str) -> Iterator[Shard]:
            yield self.shard(scorer, cuts[name], {})

        return scorer.learn(list(cuts), open_shard) if scorer.learns else {}

    def score(
        self,
        scorer: Scorer[Any],
        learned: Mapping[str, npt.NDArray[Any]],
        rows: slice | None = None,
    ) -> Columns:
        """The scores of some rows, of all by default."""
        rows = rows or slice(0, len(self))
        shard = self.shard(scorer, rows, learned)
        if isinstance(scorer, ColumnScorer):
            return scorer.score(shard)
        assert isinstance(scorer, PixelScorer)
        scores = scorer.start(shard)
        for row, image in enumerate(self.images[rows]):
            if image is not None:
                scores.add(row, image)
        return scores.columns()

    def without(self, scorer: Scorer[Any], needed: str) -> Pool:
        """The same samples when one of the things that a scorer needs is known of none of them.

        Args:
            needed: one of ``needs_of`` the scorer.
        """
        if needed == "pixels":
            return replace(self, images=[None] * len(self))
        for modality, vectors in self.vectors.items():
            if needed == _embeddings(modality):
                return replace(self, vectors={**self.vectors, modality: np.full_like(vectors, np.nan)})
        column = self.samples.schema.get_field_index(needed)
        nulls = pa.nulls(len(self), self.samples.schema.field(needed).type)
        return replace(self, samples=self.samples.set_column(column, needed, nulls))

    def cut(self, shards: int) -> dict[str, slice]:
        """Shard → its rows."""
        numbers = [shard_of(uid, shards) for uid in self.samples["uid"].to_pylist()]
        ends = [sum(number <= i for number in numbers) for i in range(shards)]
        starts = [0, *ends]
        return {layout.shard_name(i, shards): slice(starts[i], ends[i]) for i in range(shards)}

    def write(self, workspace: Workspace, shards: int = 3) -> None:
        """Commit them as if they had been downloaded and embedded."""
        workspace.write_json(
            layout.DATASET, {"shards": shards, "shard_size": len(self), "candidates": len(self)}
        )
        run_stage(workspace, _Given("download", self, shards))
        workspace.write_json(layout.embedding_model(MODEL), _FACTS)
        run_stage(workspace, _Given(f"embed/{MODEL}", self, shards))


def make_pool(rows: int = 24) -> Pool:
    """Samples of every sort: texts in several languages and none, odd sizes, unit vectors, gaps.

    Columns beside those of images: ``text_lang`` (a code or null), ``quality`` (float32, its NaN included).
    """
    rng = np.random.default_rng(rows)
    texts = {
        uid_of(text, url): (text, url)
        for i in range(rows)
        for text, url in [(_TEXTS[i % len(_TEXTS)], f"https://h.example/{i}.jpg")]
    }
    uids, empty = sorted(texts), [row for row in _EMPTY if row < rows]
    there = np.isin(np.arange(rows), empty, invert=True)

    def known(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        return pa.array([v if t else None for v, t in zip(values, there, strict=True)], kind)

    images = [_image(rng, i) for i in range(rows)]
    quality = np.where(np.arange(rows) % 9 == 7, np.nan, rng.normal(size=rows)).tolist()
    samples = pa.table(
        {
            "uid": pa.array(uids, pa.string()),
            "url": known([texts[uid][1] for uid in uids], pa.string()),
            "text": known([texts[uid][0] for uid in uids], pa.string()),
            "original_width": known([image.width for image in images], pa.int32()),
            "original_height": known([image.height for image in images], pa.int32()),
            "text_lang": known([("en", "de", None)[i % 3] for i in range(rows)], pa.string()),
            "quality": pa.array(known(quality, pa.float32())),
        }
    )
    vectors: dict[Modality, Stored] = {"image": _unit(rng, rows), "text": _unit(rng, rows)}
    for array in vectors.values():
        array[~there] = np.nan
    return Pool(
        samples, [image if t else None for image, t in zip(images, there, strict=True)], vectors, tuple(empty)
    )


def needs_of(scorer: Scorer[Any]) -> list[str]:
    """What it reads: columns, ``image embeddings``, ``text embeddings``, ``pixels``."""
    pixels = ["pixels"] if isinstance(scorer, PixelScorer) else []
    return [*scorer.columns, *(_embeddings(modality) for _, modality in scorer.vectors), *pixels]


def _embeddings(modality: Modality) -> str:
    return f"{modality} embeddings"


def encode(alias: str, texts: tuple[str, ...]) -> tuple[Vectors, float]:
    """Texts by the demo's CLIP, as a stage would do it."""
    from curate.clip.model import load

    clip = load(EMBED.models[alias])
    return clip.encode_texts(texts), clip.logit_scale


def run_stage(workspace: Workspace, stage: Stage) -> int:
    """Do what there is to do of a stage, in this process; how many units that were."""
    store = RecordStore(workspace)
    plan = make_plan(stage, workspace, store)
    store.drop(stage.name, set(plan.stale))
    for job in plan.jobs:
        run_unit(stage, workspace, job)
    stage.finish(workspace)
    return len(plan.jobs)


class _Given(Stage):
    """Commits the images, or the embeddings, of a pool."""

    def __init__(self, name: str, pool: Pool, shards: int) -> None:
        self.name, self.pool, self.shards = name, pool, shards
        self.settings: dict[str, Any] = {}

    def units(self, workspace: Workspace) -> list[Unit]:
        """One per shard."""
        return [Unit(shard) for shard in self.pool.cut(self.shards)]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Write the files of a shard."""
        rows = self.pool.cut(self.shards)[unit.name]
        write = _write_images if self.name == "download" else _write_vectors
        count = rows.stop - rows.start
        return Outcome(write(workspace, unit.name, self.pool, rows), count, count)


def _write_images(workspace: Workspace, shard: str, pool: Pool, rows: slice) -> tuple[FileRef, ...]:
    samples = pool.samples.slice(rows.start, rows.stop - rows.start)
    path = layout.image_tar(shard)
    with workspace.writing(path) as temporary:
        with tarfile.open(temporary, "w") as tar:
            for uid, image in zip(samples["uid"].to_pylist(), pool.images[rows], strict=True):
                if image is not None:
                    data = io.BytesIO()
                    image.save(data, "PNG")
                    info = tarfile.TarInfo(f"{uid}.png")
                    info.size = data.tell()
                    tar.addfile(info, io.BytesIO(data.getvalue()))
        tar_ref = ref_of(temporary, path)
    status = pa.array(["success"] * samples.num_rows, pa.string())
    table = samples.rename_columns(
        ["caption" if name == "text" else name for name in samples.column_names]
    ).append_column("status", status)
    return tar_ref, workspace.write_table(IMAGES.path(shard), table)


def _write_vectors(workspace: Workspace, shard: str, pool: Pool, rows: slice) -> tuple[FileRef, ...]:
    image, text = (pool.vectors[modality][rows].astype(np.float32) for modality in ("image", "text"))
    similarity = (image * text).sum(axis=1)
    missing = np.isnan(similarity)
    table = pa.table(
        {
            "uid": pool.samples["uid"].slice(rows.start, rows.stop - rows.start),
            "similarity": pa.array(np.where(missing, 0, similarity), pa.float32(), mask=missing),
            "reason": pa.array(["no_image" if m else None for m in missing], pa.string()),
        }
    )
    return (
        write_vectors(workspace, layout.embedding(MODEL, "image", shard), image),
        write_vectors(workspace, layout.embedding(MODEL, "text", shard), text),
        workspace.write_table(Family.embeddings(MODEL).path(shard), table),
    )


def _unit(rng: np.random.Generator, rows: int) -> Stored:
    """Unit vectors that lean to one side, as CLIP's do."""
    vectors = rng.normal(size=(rows, _DIM)) + 0.6
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float16)


def _image(rng: np.random.Generator, number: int) -> Image.Image:
    """A smooth picture of noise, its size by its number; some are flat, a line, or one pixel."""
    size = [(64, 48), (40, 90), (1, 1), (300, 2), (33, 33)][number % 5]
    if number % 7 == 6:
        return Image.new("RGB", size, (number, 90, 200))
    coarse = rng.integers(0, 256, (6, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
