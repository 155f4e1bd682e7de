"""``type: normsim``: how near a sample is to a target set.

NormSim (Wang et al., arXiv 2405.19547, section 3.2): NormSim_p of a unit vector f is the p-norm of G f, where
the rows of G are the target's unit vectors. p = ∞ is the largest absolute similarity. For p = 2 the norm is
sqrt(fᵀ(GᵀG)f): one dim x dim matrix stands for the whole target, without approximation. The paper's recipe:
the top 30 % by negCLIPLoss, then the top 20 % of the whole pool by NormSim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from curate.config.scorers.normsim import NormSimScorer
from curate.errors import UserError
from curate.score.contract import Columns, ColumnScorer, OpenShard, Shard, cosine
from curate.score.devices import device_of, one_thread
from curate.score.vectors.compute import best_match, floats, row_blocks
from curate.score.vectors.files import Arrays, find_vectors, unit_chunks


class NormSim(ColumnScorer[NormSimScorer]):
    """The largest similarity with a target; for ``norm: 2`` by the second moments of the targets."""

    gpu = True

    def __init__(self, name: str, settings: NormSimScorer) -> None:
        super().__init__(name, settings)
        place = f"{self.place}.targets"
        self.targets = find_vectors(settings.targets, settings.key, place, settings.modality)
        self.vectors = ((settings.model, settings.modality),)
        self.learns = settings.norm == 2
        self.outputs = pa.schema([("score", pa.float32()) if self.learns else cosine("score")])
        self.empty = f"{place}: no target has an embedding (all rows are zero or not finite)"

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the digest of the targets in place of their path."""
        return {**self.settings.facts(), "targets": self.targets.digest}

    def learn(self, shards: Sequence[str], open_shard: OpenShard) -> Mapping[str, npt.NDArray[Any]]:
        """``moments``: GᵀG, float64 (dim, dim)."""
        if not shards:
            return {}
        with open_shard(shards[0]) as shard:
            ((alias, _), stored) = next(iter(shard.vectors.items()))
            self.targets.check_model(alias, shard.facts[alias])
            dim = stored.shape[1]
        with one_thread(), self.targets.open(dim) as arrays:
            moments = second_moments(arrays, dim)
        if not moments.any():
            raise UserError(self.empty)
        return {"moments": moments}

    def score(self, shard: Shard) -> Columns:
        """By blocks of rows and of targets."""
        ((alias, _), stored) = next(iter(shard.vectors.items()))
        device = device_of(self.settings.device, self.place)
        with one_thread():
            if self.learns:
                values = normsim_2(stored, shard.learned["moments"], device)
            else:
                self.targets.check_model(alias, shard.facts[alias])
                with self.targets.open(stored.shape[1]) as arrays:
                    values = normsim_inf(stored, arrays, device)
        if len(values) and bool(np.isneginf(values).any()):
            raise UserError(self.empty)
        return {"score": floats(values, np.isnan(values))}


def normsim_inf(
    stored: npt.NDArray[np.floating], targets: Arrays, device: torch.device
) -> npt.NDArray[np.float64]:
    """max_j |f·g_j| of vectors (n, dim): float64 (n,), NaN without an embedding."""
    out = np.full(len(stored), np.nan)
    for part, rows, known in row_blocks(stored, device):
        best, _ = best_match(rows, unit_chunks(targets, device), absolute=True)
        out[part] = best.masked_fill(~known, torch.nan).cpu().numpy()
    return out


def second_moments(targets: Arrays, dim: int) -> npt.NDArray[np.float64]:
    """GᵀG of the targets, float64 (dim, dim)."""
    moments = torch.zeros((dim, dim), dtype=torch.float64)
    for chunk in unit_chunks(targets, torch.device("cpu")):
        block = chunk.vectors.double()
        moments += block.T @ block
    return moments.numpy()


def normsim_2(
    stored: npt.NDArray[np.floating], moments: npt.NDArray[np.float64], device: torch.device
) -> npt.NDArray[np.float64]:
    """sqrt(fᵀ M f) of vectors (n, dim): float64 (n,), NaN without an embedding."""
    out = np.full(len(stored), np.nan)
    matrix = torch.from_numpy(moments).to(device)
    for part, rows, known in row_blocks(stored, device):
        wide = rows.double()
        square = ((wide @ matrix) * wide).sum(dim=1).clamp(min=0)
        out[part] = square.sqrt().masked_fill(~known, torch.nan).cpu().numpy()
    return out
