"""``type: held_out``: distance to an evaluation set, so that what is held out can be kept out of training.

DataComp (arXiv 2304.14108, appendix on deduplication against evaluation sets) drops candidates whose
copy-detection embedding (ISC `isc_ft_v107`) has a cosine above 0.604169 with a test image (precision
.9, recall .8). CLIP is the wrong tool for near-copies: a ViT-B/32 at 0.96 has a recall of .02.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from curate.config.scorers.held_out import HeldOutScorer
from curate.errors import UserError
from curate.score.contract import Columns, ColumnScorer, Shard, cosine
from curate.score.devices import device_of, one_thread
from curate.score.vectors.compute import best_match, floats, row_blocks
from curate.score.vectors.files import Arrays, find_vectors, unit_chunks


class HeldOut(ColumnScorer[HeldOutScorer]):
    """Similarity with the nearest held-out vector, and its file and row."""

    outputs = pa.schema([cosine("similarity"), ("file", pa.string()), ("row", pa.int64())])
    gpu = True

    def __init__(self, name: str, settings: HeldOutScorer) -> None:
        super().__init__(name, settings)
        self.held = find_vectors(settings.vectors, settings.key, f"{self.place}.vectors", settings.modality)
        self.vectors = ((settings.model, settings.modality),)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the digest of the held-out embeddings in place of their path."""
        return {**self.settings.facts(), "vectors": self.held.digest}

    def score(self, shard: Shard) -> Columns:
        """Of the embeddings that are read block by block."""
        ((alias, _), stored) = next(iter(shard.vectors.items()))
        self.held.check_model(alias, shard.facts[alias])
        device = device_of(self.settings.device, self.place)
        with one_thread(), self.held.open(stored.shape[1]) as arrays:
            values, numbers = nearest(stored, arrays, device)
            ends = np.cumsum([len(array) for array in arrays])
        missing = np.isnan(values)
        if bool((numbers[~missing] < 0).any()):
            raise UserError(f"{self.held.place}: no row has an embedding (all are zero or not finite)")
        file = np.searchsorted(ends, numbers, side="right")
        starts = np.concatenate([[0], ends])[np.where(missing, 0, file)]
        names = pa.array([f.name for f in self.held.files], pa.string())
        return {
            "similarity": floats(values, missing),
            "file": names.take(pa.array(np.where(missing, 0, file), pa.int64(), mask=missing)),
            "row": pa.array(numbers - starts, pa.int64(), mask=missing),
        }


def nearest(
    stored: npt.NDArray[np.floating], others: Arrays, device: torch.device
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Largest cosine of vectors (n, dim) with others, and which row it is, counted over all arrays.

    Float64 (n,), NaN without an embedding; int64 (n,), -1 there.
    """
    values = np.full(len(stored), np.nan)
    numbers = np.full(len(stored), -1, np.int64)
    for part, rows, known in row_blocks(stored, device):
        best, number = best_match(rows, unit_chunks(others, device))
        values[part] = best.masked_fill(~known, torch.nan).cpu().numpy()
        numbers[part] = number.masked_fill(~known, -1).cpu().numpy()
    return values, numbers
