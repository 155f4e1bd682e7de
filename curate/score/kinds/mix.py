"""``type: mix``: a weighted sum of standardised columns, the way M-FLYT mixes scores.

M-FLYT (Shechter and Carmon, arXiv 2503.08805) learns one linear layer over twelve
published scores; its columns come standardised. Here mean and standard deviation are learned over the
pool and stored, so that a score can be computed again without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.config.scorers.mix import MixScorer
from curate.errors import UserError
from curate.samples.moments import Moments
from curate.score.contract import Columns, ColumnScorer, OpenShard, Shard

Doubles = npt.NDArray[np.float64]


class Mix(ColumnScorer[MixScorer]):
    """The sum."""

    outputs = pa.schema({"score": pa.float32()})
    learns = True

    def __init__(self, name: str, settings: MixScorer) -> None:
        super().__init__(name, settings)
        self.place = f"{self.place}.weights"
        self.columns = tuple(settings.weights)

    def learn(self, shards: Sequence[str], open_shard: OpenShard) -> Mapping[str, npt.NDArray[Any]]:
        """``mean`` and ``std`` of the columns and ``count`` of their values, in order of the weights.

        Mean 0 and deviation 1 when columns are not standardised, 1 where a column has one value only.
        """
        moments = [Moments() for _ in self.columns]
        for name in shards if self.settings.standardise else ():
            with open_shard(name) as shard:
                for one, column in zip(moments, self.columns, strict=True):
                    values = numbers(shard.samples[column], column, self.place)
                    one.add(values[~np.isnan(values)])
        return {
            "mean": np.array([one.mean for one in moments]),
            "std": np.array([one.std or 1.0 for one in moments]),
            "count": np.array([one.count for one in moments], np.int64),
        }

    def score(self, shard: Shard) -> Columns:
        """The sum; null where any of the columns is null."""
        total = np.zeros(len(shard))
        for i, (column, weight) in enumerate(self.settings.weights.items()):
            values = numbers(shard.samples[column], column, self.place)
            total += weight * (values - shard.learned["mean"][i]) / shard.learned["std"][i]
        with np.errstate(over="ignore"):
            single = total.astype(np.float32)
        missing = ~np.isfinite(single)
        return {"score": pa.array(np.where(missing, 0, single), pa.float32(), mask=missing)}


def numbers(column: pa.Array | pa.ChunkedArray, name: str, place: str) -> Doubles:
    """A column as float64 (n,), NaN where it is null or not finite; true is 1.

    Raises:
        UserError: not a column of numbers.
    """
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise UserError(f"{place}.{name}: a mix needs numbers, this column is {kind}")
    if pa.types.is_boolean(kind):
        column = pc.cast(column, pa.int8())
    values = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)
