"""The vectors of a shard: pipelines around models, no paths of the workspace.

Images are decoded ahead into a few blocks, once for all models; captions are run in groups of the same
length. A sample's numbers do not depend on its neighbours: forward passes have few fixed shapes, and
an image that does not decode keeps its (black) place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.clip.batches import pieces
from curate.clip.model import Clip, Pending
from curate.clip.pixels import Preparation
from curate.clip.text import Tokens, by_length
from curate.clip.vectors import Vectors
from curate.dataset.tars import image_spans
from curate.embed.blocks import Block
from curate.embed.decoders import Decoders, Span, forget_all
from curate.engine.reporting import report
from curate.errors import DataError
from curate.reasons import EmbedReason

AHEAD = 3
"""Blocks of images in the making or on their way through the models, per shard that is worked on."""

CHUNK = 32
"""Images or captions that one decoder takes at a time."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Embedded:
    """The columns of a shard.

    Attributes:
        image: float32 (n, dim), NaN where there is none; None when images are not asked for.
        text: the same for texts.
        similarity: cosine of the two before they are rounded, float32 (n,), null where one is missing.
        reason: an EmbedReason or null, string (n,).
        full: captions that fill the model's context: what does not fit is cut off.
    """

    image: Vectors | None
    text: Vectors | None
    similarity: pa.Array
    reason: pa.Array
    full: int


def embed(
    clips: Sequence[tuple[Clip, Sequence[str]]],
    uids: Mapping[str, int],
    captions: Sequence[str | None],
    tar: Path | None,
    pool: Decoders,
) -> list[Embedded]:
    """Embed the samples of one shard with one or more models.

    Args:
        clips: the models, each with the modalities (``image``, ``text``) that are wanted of it.
        uids: uid → row, for the n samples.
        captions: the n captions; null or white space has no embedding.
        tar: the shard, members in any order; those of no sample, and second copies, are ignored.
        pool: decodes and tokenises.

    Raises:
        DataError: a process of the pool has died.
    """
    seeing = [clip for clip, wanted in clips if "image" in wanted]
    images = _Images(len(captions))
    try:
        if seeing:
            images.read(seeing, uids, tar, pool)
        return [_of_model(clip, wanted, images, captions, pool) for clip, wanted in clips]
    except BrokenProcessPool:  # when handing out work as well as when waiting for it
        forget_all()
        raise DataError(
            "a process that decodes images died (out of memory?); the shard is tried again"
        ) from None


def _of_model(
    clip: Clip, wanted: Sequence[str], images: _Images, captions: Sequence[str | None], pool: Decoders
) -> Embedded:
    image = images.vectors.get(id(clip)) if "image" in wanted else None
    reasons: list[str | None] = [None] * len(captions)
    if "text" in wanted:
        reasons = [None if c is not None and c.strip() else EmbedReason.NO_TEXT for c in captions]
    if image is not None:
        reasons = [why or other for why, other in zip(images.reasons, reasons, strict=True)]
    text, full = None, 0
    if "text" in wanted:
        rows = np.array([row for row, why in enumerate(reasons) if why is None], np.int64)
        text, full = _texts(clip, captions, rows, pool)
    if image is None or text is None:
        similarity = pa.nulls(len(captions), pa.float32())
    else:
        cosine = np.einsum("ij,ij->i", image, text)
        similarity = pa.array(cosine, mask=~np.isfinite(cosine))
    return Embedded(image, text, similarity, pa.array(reasons, pa.string()), full)


@dataclass
class _Work:
    """A block of images: what decodes it, then what embeds it."""

    rows: Rows
    targets: list[tuple[Preparation, Block]]
    decoding: list[Future[list[int]]]
    running: list[tuple[Clip, Pending]] = field(default_factory=list)


class _Images:
    """The image vectors of every model that sees, and why a sample has none."""

    def __init__(self, samples: int) -> None:
        self.reasons: list[str | None] = [None] * samples
        self.finished = 0
        self.vectors: dict[int, Vectors] = {}

    def read(self, clips: Sequence[Clip], uids: Mapping[str, int], tar: Path | None, pool: Decoders) -> None:
        """Fill in the vectors from a shard's images."""
        n = len(self.reasons)
        self.vectors = {id(clip): np.full((n, clip.dim), np.nan, np.float32) for clip in clips}
        spans = [] if tar is None else _of_samples(tar, uids)
        for row in set(range(n)).difference(row for row, _, _ in spans):
            self.reasons[row] = EmbedReason.MISSING_MEMBER
        size = max(clip.batch_size for clip in clips)
        decoding: deque[_Work] = deque()
        running: deque[_Work] = deque()
        try:
            for work in self._decode(clips, str(tar), spans, size, pool):
                decoding.append(work)
                if len(decoding) + len(running) >= AHEAD:
                    running.append(self._launch(clips, decoding.popleft()))
                if len(running) > 1:
                    self._finish(running.popleft(), pool)
            while decoding or running:
                if decoding:
                    running.append(self._launch(clips, decoding.popleft()))
                if len(running) > 1 or not decoding:
                    self._finish(running.popleft(), pool)
        finally:
            for work in (*decoding, *running):
                wait(work.decoding)
                _give_back(work, pool)

    def _decode(
        self, clips: Sequence[Clip], tar: str, spans: Sequence[Span], size: int, pool: Decoders
    ) -> Iterator[_Work]:
        """Have blocks decoded, in order; each is in the making when it is given."""
        preparations = list(dict.fromkeys(clip.preparation for clip in clips))
        for at in range(0, len(spans), size):
            part = spans[at : at + size]
            targets = [(p, pool.blocks.take((size, *p.shape), p.dtype)) for p in preparations]
            numbered = [(slot, offset, length) for slot, (_, offset, length) in enumerate(part)]
            futures = [
                pool.prepare(tar, numbered[i : i + CHUNK], targets) for i in range(0, len(part), CHUNK)
            ]
            yield _Work(np.array([row for row, _, _ in part], np.int64), targets, futures)

    def _launch(self, clips: Sequence[Clip], work: _Work) -> _Work:
        broken = [slot for future in work.decoding for slot in future.result()]
        for row in work.rows[broken].tolist():
            self.reasons[row] = EmbedReason.DECODE_ERROR
        blocks = dict(work.targets)
        for clip in clips:
            batch = blocks[clip.preparation].array[: len(work.rows)]
            work.running.append((clip, clip.start_images(batch)))
        return work

    def _finish(self, work: _Work, pool: Decoders) -> None:
        good = np.array([self.reasons[row] is None for row in work.rows.tolist()], bool)
        for clip, pending in work.running:
            self.vectors[id(clip)][work.rows[good]] = pending.result()[good]
        self.finished += len(work.rows)
        report(self.finished, self.finished, {})
        _give_back(work, pool)


def _give_back(work: _Work, pool: Decoders) -> None:
    for _, block in work.targets:
        pool.blocks.give_back(block)


def _of_samples(tar: Path, uids: Mapping[str, int]) -> list[Span]:
    """(row, offset, size) of the first image of every sample, in the tar's order."""
    found: dict[int, Span] = {}
    for key, offset, size in image_spans(tar):
        row = uids.get(key)
        if row is not None and row not in found:
            found[row] = (row, offset, size)
    return list(found.values())


def _texts(clip: Clip, captions: Sequence[str | None], rows: Rows, pool: Decoders) -> tuple[Vectors, int]:
    """Text vectors (n, dim) of the given rows, and how many captions fill the context."""
    out = np.full((len(captions), clip.dim), np.nan, np.float32)
    texts = [captions[row] or "" for row in rows.tolist()]
    if not texts:
        return out, 0
    if clip.sentence_text is not None:
        for start, stop, _ in pieces(len(texts), clip.batch_size):
            out[rows[start:stop]] = clip.encode_captions(texts[start:stop])
        return out, 0
    futures = [pool.tokenize(clip, texts[i : i + 8 * CHUNK]) for i in range(0, len(texts), 8 * CHUNK)]
    tokens: Tokens = np.concatenate([future.result() for future in futures])
    waiting: deque[tuple[Rows, Pending]] = deque()
    ends, context = clip.ends(tokens), tokens.shape[1]
    for length, group in by_length(ends, context):
        for at in range(0, len(group), clip.batch_size):
            part = group[at : at + clip.batch_size]
            waiting.append((rows[part], clip.start_tokens(tokens[part, :length])))
            if len(waiting) > AHEAD:
                done, pending = waiting.popleft()
                out[done] = pending.result()
    for done, pending in waiting:
        out[done] = pending.result()
    return out, 0 if clip.short_text is None else int((ends == context - 1).sum())
