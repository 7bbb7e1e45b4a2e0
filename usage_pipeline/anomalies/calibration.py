"""What an ordinary week looks like on this lake: the scores of its own past, and not a law that was assumed.

A score is turned into the standard normal value of the share of ordinary weeks beyond it (an empirical null: Efron
2004, doi 10.1198/016214504000000089), by the size, scatter and kind of the series. Until the lake has enough history
the law that the scores were computed by stands in, and this is said.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.signedinteger[Any]]

SERIES_WEEKS, WEEKS = 5_000, 30
# the scores of so many weeks are what is ordinary, looked at anew every few weeks
MEMORY, EVERY = 52, 4
# shares of ordinary weeks beyond each knot, and the normal values that they mean
_SHARES = np.array([0.5, 0.2, 0.1, 0.05, 0.025, 0.012, 0.006])
_NORMAL = -ndtri(_SHARES)
# what is assumed counts as much as so many weeks of series
_PRIOR = 500.0
_SKEW = 1.4
_SIZES = np.array([5.0, 20.0, 100.0])
_SCATTERS = np.array([0.25, 0.5])
CELLS = (len(_SIZES) + 1) * (len(_SCATTERS) + 1) * 2


def cell_of(mean: Floats, relative: Floats, is_irregular: Bools) -> Ints:
    """The place of each series among the cells: size, scatter beyond chance, mostly zero or not."""
    size, scatter = np.searchsorted(_SIZES, mean), np.searchsorted(_SCATTERS, relative)
    found: Ints = (is_irregular * (len(_SIZES) + 1) + size) * (len(_SCATTERS) + 1) + scatter
    return found


@dataclass
class Calibration:
    """From scores to normal values, one side: the scores beyond which few ordinary weeks lie."""

    # beforehand: of three windows that overlap, the largest value lies beyond a limit about twice as often as one
    knots: Floats = field(default_factory=lambda: np.tile(-ndtri(_SHARES / 2), (CELLS, 1)))
    is_calibrated: bool = False

    @classmethod
    def of_spikes(cls) -> "Calibration":
        """Counts that scatter much are skewed beyond the law: so much is known before the lake has said it."""
        found = cls()
        scatter = np.arange(CELLS) % (len(_SCATTERS) + 1)
        found.knots = found.knots * np.where(scatter == len(_SCATTERS), _SKEW, 1.0)[:, None]
        return found

    def learn(self, scores: Floats, cells: Ints, certain: Bools) -> None:
        """Scores and cells of past weeks, (n, weeks); `certain` names those that hardly were ordinary.

        Without them the limits are too low where scores are skewed, with them too high where much happens: the middle
        of both is taken.
        """
        there = ~np.isnan(scores)
        weeks = int(there.any(axis=0).sum())
        if there.sum() < SERIES_WEEKS or weeks < WEEKS:
            return
        self.knots = (self._of(scores, cells, there) + self._of(scores, cells, there & ~certain)) / 2
        self.is_calibrated = True

    def _of(self, scores: Floats, cells: Ints, there: Bools) -> Floats:
        flat, of = scores[there], cells[there]
        every = np.quantile(flat, 1 - _SHARES)
        found = np.array(self.knots)
        for cell in np.unique(of):
            inside = flat[of == cell]
            own = np.quantile(inside, 1 - _SHARES)
            # far out a cell has few weeks of its own: the shape of all, at the cell's width
            width = (own[3] - own[0]) / max(every[3] - every[0], 1e-3)
            shape = own[0] + width * (every - every[0])
            trust = len(inside) * _SHARES / (len(inside) * _SHARES + _PRIOR * _SHARES[3])
            found[cell] = np.maximum.accumulate(trust * own + (1 - trust) * shape + 1e-6 * np.arange(len(own)))
        return found

    def normal(self, scores: Floats, cells: Ints) -> Floats:
        """Standard normal values of scores, (n,)."""
        knots = self.knots[cells]
        place = np.clip((scores[:, None] > knots).sum(axis=1), 1, len(_NORMAL) - 1)
        rows = np.arange(len(scores))
        low, high = knots[rows, place - 1], knots[rows, place]
        slope = (_NORMAL[place] - _NORMAL[place - 1]) / np.maximum(high - low, 1e-6)
        # beyond the last knot no faster than the law itself
        beyond = scores > knots[:, -1]
        inside = _NORMAL[place - 1] + slope * (scores - low)
        found: Floats = np.where(beyond, _NORMAL[-1] + np.minimum(slope, 1.0) * (scores - knots[:, -1]), inside)
        return found
