"""Worlds to find anomalies in: weekly counts of many accounts with applications, and what really happened in them.

Each module makes worlds from an idea of its own and knows nothing of the detector. `make(seed)` gives one world.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SEEDS_FOR_TUNING = range(4)
# never looked at while something was tuned
SEEDS_KEPT_UNSEEN = range(100, 104)


@dataclass(frozen=True)
class Event:
    """Something that happened to one series: `weeks` weeks from `week` on, its mean multiplied by `factor`."""

    series: int
    week: int
    weeks: int
    kind: str  # spike, drop, decline, shift (for good)
    factor: float


@dataclass(frozen=True)
class CommonEvent:
    """Something that happened to the accounts of an application (-1: of all) together, once."""

    application: int
    week: int
    weeks: int
    factor: float


@dataclass
class World:
    """n series (account x application) over T weeks."""

    name: str
    counts: NDArray[np.float64]  # (n, T), NaN outside a subscription and in weeks that never arrived
    mean: NDArray[np.float64]  # (n, T), true, with seasons, holidays and common events, without events
    variance: NDArray[np.float64]  # (n, T), true, around `mean`
    account: NDArray[np.int64]  # (n,)
    application: NDArray[np.int64]  # (n,), from 0
    working_days: NDArray[np.float64]  # (n, T), Monday to Friday without public holidays, as a share of five
    judged_from: int  # first week that is counted in the tables; events lie from here on
    events: list[Event] = field(default_factory=list)
    common: list[CommonEvent] = field(default_factory=list)
    left_out: NDArray[np.bool_] | None = None  # (n, T), weeks that are neither ordinary nor an event

    def ordinary(self) -> NDArray[np.bool_]:
        """Weeks judged in which nothing happened to the series, and not in the five weeks after something ended."""
        found = ~np.isnan(self.counts)
        found[:, : self.judged_from] = False
        for event in self.events:
            for_good = event.kind in ("shift", "decline")
            last = self.counts.shape[1] if for_good else event.week + event.weeks + 5
            found[event.series, event.week : last] = False
        if self.left_out is not None:
            found &= ~self.left_out
        return found

    def happening(self) -> NDArray[np.bool_]:
        """Weeks of series in which an event of their own runs."""
        found = np.zeros(self.counts.shape, dtype=bool)
        for event in self.events:
            found[event.series, event.week : event.week + event.weeks] = True
        return found & ~np.isnan(self.counts)
