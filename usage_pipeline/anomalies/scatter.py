"""How far a series strays from what is expected of it in an ordinary week.

The variance of a weekly count grows with its mean and with the square of its mean: phi x mean + (cv x mean)^2, the
second part from 8 to 90 percent between series. Each series' own is learned from its residuals and drawn towards that
of series of its size. Residuals of neighboring weeks are alike, so a sum over weeks strays farther than single weeks
would make it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.signedinteger[Any]]

# a residual counts for no more than this many standard deviations, so that an event does not hide the next one
_CUT = 3.0
# weight of an earlier week against the one after it
_MEMORY = 0.985
# the peers count as much as so many weeks of the series' own
_PEERS_WEEKS = 8.0
_PEERS_PRODUCTS = 100.0
# counts of neighbors in time are never taken to be more alike
_MOST_ALIKE = 0.4


class Scatter:
    """The variance of n series around their expected counts, learned week by week."""

    def __init__(self, series: int) -> None:
        self.phi, self.cv2 = 1.5, 0.03
        self.mean = np.zeros(series)
        self._squares, self._weight = np.zeros(series), np.zeros(series)
        self._products, self._product_weight = np.zeros(series), np.zeros(series)
        self._last = np.full(series, np.nan)
        self.ratio = np.ones(series)
        self.alike = np.zeros(series)

    def variance(self, mean: Floats) -> Floats:
        """Of counts around `mean`, (n,) or (n, weeks)."""
        shape = (-1,) + (1,) * (mean.ndim - 1)
        found: Floats = np.maximum(self.ratio.reshape(shape) * mean * (self.phi + self.cv2 * mean), mean)
        return found

    def of(self, rows: Ints) -> "Scatter":
        """The same of some of the series."""
        found = Scatter(0)
        found.phi, found.cv2 = self.phi, self.cv2
        found.mean, found.ratio, found.alike = self.mean[rows], self.ratio[rows], self.alike[rows]
        return found

    def relative(self) -> Floats:
        """Standard deviation of a week as a share of the mean, without what chance alone makes of a count."""
        mean = np.maximum(self.mean, 0.1)
        found: Floats = np.sqrt(np.maximum(self.ratio * (self.phi + self.cv2 * mean) - 1, 0) / mean)
        return found

    def of_sum(self, variances: Floats) -> Floats:
        """Variance of the sum of neighboring weeks, (n, weeks) of single ones."""
        deviations = np.sqrt(variances)
        found: Floats = variances.sum(axis=1)
        for apart in range(1, variances.shape[1]):
            found = found + 2 * self.alike**apart * (deviations[:, apart:] * deviations[:, :-apart]).sum(axis=1)
        return found

    def learn(self, counts: Floats, mean: Floats, doubt: Floats, judged: Bools) -> None:
        """Takes a week in: counts, what was expected, and the variance of that expectation itself."""
        variance = self.variance(np.nan_to_num(mean, nan=1.0))
        share = variance / (variance + np.nan_to_num(doubt))
        residual = np.where(judged, (counts - mean) * np.sqrt(share / variance), 0.0)
        residual = np.clip(residual, -_CUT, _CUT)
        of_mean = variance / np.maximum(np.nan_to_num(mean, nan=1.0), 0.05)
        self._squares = self._squares * _MEMORY + np.where(judged, residual**2 * of_mean, 0.0)
        self._weight = self._weight * _MEMORY + judged
        pace = np.where(judged, 1 / np.maximum(np.minimum(self._weight, 20), 1), 0.0)
        self.mean = self.mean + pace * (np.nan_to_num(mean) - self.mean)
        both = judged & ~np.isnan(self._last)
        self._products = self._products * _MEMORY + np.where(both, residual * np.nan_to_num(self._last), 0.0)
        self._product_weight = self._product_weight * _MEMORY + np.where(both, residual**2, 0.0)
        self._last = np.where(judged, residual, np.nan)
        self._draw()

    def _draw(self) -> None:
        """Learns what series of each size have in common, and draws each towards it."""
        known = self._weight >= 8
        if known.sum() >= 20:
            raw = self._squares[known] / self._weight[known]
            mean = self.mean[known]
            small, large = mean < max(np.quantile(mean, 0.3), 3.0), mean > max(np.quantile(mean, 0.5), 5.0)
            if small.sum() >= 10:
                self.phi = float(np.clip(np.median(raw[small]), 1.0, 4.0))
            if large.sum() >= 10:
                self.cv2 = float(np.clip(np.median(np.maximum(raw[large] - self.phi, 0.02) / mean[large]), 1e-4, 1.0))
        expected = self.phi + self.cv2 * self.mean
        own = (_PEERS_WEEKS * expected + self._squares) / (_PEERS_WEEKS + self._weight)
        self.ratio = own / expected
        total: Any = self._product_weight.sum()
        of_all = float(np.clip(self._products.sum() / total, 0, 0.5)) if total > 50 else 0.1
        alike = (_PEERS_PRODUCTS * of_all + self._products) / (_PEERS_PRODUCTS + self._product_weight)
        self.alike = np.clip(alike, 0.0, _MOST_ALIKE)
