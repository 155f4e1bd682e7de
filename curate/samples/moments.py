"""Mean and spread of numbers that come in parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass
class Moments:
    """Count, mean, sum of squared deviations, least and greatest.

    Parts are joined by Chan's rule (1979), which does not lose digits as a sum of squares would.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Take in more numbers, shape (n,); those that are not finite are left out."""
        values = values[np.isfinite(values)]
        if not len(values):
            return
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        count = self.count + len(values)
        apart = mean - self.mean
        self.squares += squares + apart * apart * self.count * len(values) / count
        self.mean += apart * len(values) / count
        self.count = count
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    @property
    def std(self) -> float:
        """Population standard deviation; 0 of one value."""
        return float(np.sqrt(self.squares / self.count)) if self.high > self.low else 0.0
