"""The usual level of each series: discounted clicks over discounted exposure.

How fast a level forgets is not one number for all: a small series needs a long memory, one whose staff changes a
short one. Several run side by side, and each series uses the one that has foreseen its weeks best (experts by
discounted loss: Herbster and Warmuth 1998; discounting: West and Harrison 1997).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from usage_pipeline.anomalies.scatter import Scatter

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MEMORY = 0.98
# what series of its size have lost counts as much as so many weeks of its own
_PEERS_WEEKS = 30.0
_SIZES = np.array([5.0, 20.0, 100.0])


class Levels:
    """Levels of n series by each of some discounts."""

    def __init__(self, series: int, discounts: Sequence[float]) -> None:
        self.discounts = np.array(discounts)[:, None]
        self.clicks, self.exposure = (np.zeros((len(discounts), series)) for _ in range(2))
        self._loss, self._weight = np.zeros((len(discounts), series)), np.zeros(series)
        self._middle = len(discounts) // 2
        self._chosen = np.full(series, self._middle)

    def best(self) -> tuple[Floats, Floats]:
        """Clicks and exposure of each series, by the discount that has foreseen it best."""
        rows = np.arange(self.clicks.shape[1])
        return self.clicks[self._chosen, rows], self.exposure[self._chosen, rows]

    def start(self, series: int, clicks: float, exposure: float) -> None:
        """A new level of one series."""
        self.clicks[:, series], self.exposure[:, series] = clicks, exposure

    def take(self, counts: Floats, exposure: Floats, weight: Floats, scatter: Scatter, known: Bools) -> None:
        """Takes a week in where it is known; `weight` says how much it tells about the usual level."""
        self._compare(counts, exposure, scatter, known & (self.exposure[0] > 4))
        decay = np.where(known, self.discounts, 1.0)
        self.clicks = self.clicks * decay + np.where(known, weight * counts, 0.0)
        self.exposure = self.exposure * decay + np.where(known, weight * exposure, 0.0)

    def _compare(self, counts: Floats, exposure: Floats, scatter: Scatter, judged: Bools) -> None:
        expected = self.clicks / np.maximum(self.exposure, 1e-9) * exposure
        middle = expected[self._middle]
        variance = np.maximum(scatter.variance(np.maximum(middle, 0.05)), 1e-9)
        loss = np.minimum((counts - expected) ** 2 / variance, 9.0)
        self._loss = self._loss * _MEMORY + np.where(judged, loss, 0.0)
        self._weight = self._weight * _MEMORY + judged
        size = np.searchsorted(_SIZES, middle)
        weight = np.maximum(np.bincount(size, self._weight, len(_SIZES) + 1), 1e-9)
        of_size = np.stack([np.bincount(size, line, len(_SIZES) + 1) / weight for line in self._loss])
        total = self._loss + _PEERS_WEEKS * of_size[:, size]
        self._chosen = np.where(self._weight + of_size.sum() > 0, np.argmin(total, axis=0), self._middle)
