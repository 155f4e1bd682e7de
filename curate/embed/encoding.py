"""The vectors of a shard: pipelines around the model, no paths.

A sample's numbers must not depend on its neighbours. Every forward pass has the same shape (the last
one is padded with zeros), and a sample whose image does not decode keeps its place in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from curate.clip.images import decode
from curate.clip.model import Clip
from curate.clip.vectors import Vectors
from curate.embed.images import ordered
from curate.reasons import EmbedReason

Decoded = tuple[int, torch.Tensor | None]
"""Row of a sample and its preprocessed image; None when it does not decode."""


@dataclass(frozen=True)
class Embedded:
    """The columns of a shard.

    Attributes:
        image: float32 (n, dim), NaN where there is none.
        text: float32 (n, dim), NaN where there is none.
        similarity: cosine of the two before they are rounded, float32 (n,), null where one is missing.
        reason: an EmbedReason or null, string (n,).
    """

    image: Vectors
    text: Vectors
    similarity: pa.Array
    reason: pa.Array


def embed(
    clip: Clip,
    rows: Mapping[str, int],
    captions: Sequence[str | None],
    images: Iterator[tuple[str, bytes]],
    batch_size: int,
    threads: int,
) -> Embedded:
    """Embed the samples of one shard.

    Args:
        clip: the model.
        rows: uid → row, for the n samples.
        captions: the n captions; null or white space has no embedding.
        images: (uid, bytes) in any order; uids that are no sample's, and second copies, are ignored.
        batch_size: samples per forward pass; moves float32 results by rounding (about 1e-7).
        threads: threads that decode; changes nothing.
    """
    n = len(captions)
    image = np.full((n, clip.dim), np.nan, np.float32)
    text = np.full((n, clip.dim), np.nan, np.float32)
    reasons: list[str | None] = [None if _has_text(c) else EmbedReason.NO_TEXT for c in captions]
    found = np.zeros(n, bool)

    def prepare(item: tuple[int, bytes]) -> Decoded:
        row, data = item
        try:
            return row, clip.preprocess(decode(data))
        except Exception:  # noqa: BLE001 - what Pillow raises for a broken image has no common base
            return row, None

    with ThreadPoolExecutor(max_workers=threads) as pool:
        decoded = ordered(pool, prepare, _of_samples(images, rows, found), batch_size + 2 * threads)
        for batch_rows, pixels in _batches(decoded, batch_size):
            broken = [row for row, tensor in zip(batch_rows, pixels, strict=True) if tensor is None]
            for row in broken:
                reasons[row] = EmbedReason.DECODE_ERROR
            kept = [i for i, tensor in enumerate(pixels) if tensor is not None]
            if kept:
                vectors = clip.encode_images(_stacked(pixels, batch_size))
                image[[batch_rows[i] for i in kept]] = vectors[kept]
        for row in np.flatnonzero(~found).tolist():
            reasons[row] = EmbedReason.MISSING_MEMBER
        with_text = [row for row in range(n) if reasons[row] is None]
        chunks = (with_text[i : i + batch_size] for i in range(0, len(with_text), batch_size))
        for batch, tokens in ordered(pool, lambda c: (c, _tokens(clip, captions, c)), chunks, 2):
            text[batch] = clip.encode_tokens(_padded(tokens, batch_size))[: len(batch)]
    cosine = np.einsum("ij,ij->i", image, text)
    reason = pa.array(reasons, pa.string())
    return Embedded(image, text, pa.array(cosine, mask=~np.isfinite(cosine)), reason)


def _has_text(caption: str | None) -> bool:
    return caption is not None and bool(caption.strip())


def _of_samples(
    images: Iterator[tuple[str, bytes]], rows: Mapping[str, int], found: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, bytes]]:
    for key, data in images:
        row = rows.get(key)
        if row is not None and not found[row]:
            found[row] = True
            yield row, data


def _batches(decoded: Iterator[Decoded], size: int) -> Iterator[tuple[list[int], list[torch.Tensor | None]]]:
    rows: list[int] = []
    pixels: list[torch.Tensor | None] = []
    for row, tensor in decoded:
        rows.append(row)
        pixels.append(tensor)
        if len(rows) == size:
            yield rows, pixels
            rows, pixels = [], []
    if rows:
        yield rows, pixels


def _stacked(pixels: Sequence[torch.Tensor | None], size: int) -> torch.Tensor:
    """Tensors (3, h, w) → (size, 3, h, w), zeros where there is none."""
    shape = next(tensor.shape for tensor in pixels if tensor is not None)
    batch = torch.zeros((size, *shape))
    for i, tensor in enumerate(pixels):
        if tensor is not None:
            batch[i] = tensor
    return batch


def _tokens(clip: Clip, captions: Sequence[str | None], rows: Sequence[int]) -> torch.Tensor:
    return clip.tokenizer([captions[row] or "" for row in rows])


def _padded(tokens: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat the last row up to ``size``: a row of zeros would have no end-of-text token."""
    missing = size - len(tokens)
    return torch.cat([tokens, tokens[-1:].expand(missing, -1)]) if missing > 0 else tokens
