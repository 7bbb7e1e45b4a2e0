"""Worlds to find spikes and usage drops in: weekly counts of many accounts with applications, and what was planted.

It knows nothing of the detector and shares no code with it. Counts are visits, each of some clicks (a Polya-Aeppli law,
not the negative binomial that the detector supposes), in weeks that are busier and quieter than chance alone; seasons
are harmonics with a summer dip and a year-end of an application's own, felt by each account to its own degree.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

WEEKS = 160
JUDGED_FROM = 108
_NOISE = 0.07


@dataclass
class Event:
    series: int
    week: int
    weeks: int
    kind: str  # spike, drop, decline
    factor: float


@dataclass
class World:
    """n series over `WEEKS` weeks; events, shifts and moves of the platform lie in the last 52."""

    counts: NDArray[np.float64]  # (n, WEEKS), NaN outside subscriptions and in weeks that never arrived
    mean: NDArray[np.float64]  # true, without events
    variance: NDArray[np.float64]  # true, without events
    application: NDArray[np.int64]
    working_days: NDArray[np.float64]  # as a share of five
    shift: NDArray[np.int64]  # week of a lasting shift, -1 where there is none
    events: list[Event] = field(default_factory=list)

    def ordinary(self) -> NDArray[np.bool_]:
        """Weeks judged in which nothing happened: not in an event, five weeks after one, a shift or past a decline."""
        found = ~np.isnan(self.counts)
        found[:, :JUDGED_FROM] = False
        for event in self.events:
            last = WEEKS if event.kind == "decline" else event.week + event.weeks + 5
            found[event.series, event.week : last] = False
        for series in np.flatnonzero(self.shift >= 0):
            found[series, self.shift[series] :] = False
        return found


def make_world(seed: int, series: int = 2000, applications: int = 20, events_a_week: float = 0.01) -> World:
    """`events_a_week`: chance of a series that an event begins in a week."""
    rng = np.random.default_rng(seed)
    week = np.arange(WEEKS)
    of_year = (week + rng.integers(0, 52)) % 52
    application, region = rng.integers(0, applications, series), rng.integers(0, 4, series)
    level = np.exp(rng.uniform(np.log(0.5), np.log(2000), series))
    spread = rng.uniform(1, 4, series)

    log_mean = (
        np.log(level)[:, None] + rng.uniform(0.6, 1.4, (series, 1)) * _seasons(rng, applications, of_year)[application]
    )
    log_mean += rng.normal(0, 0.15, (series, 1)) * week / 52
    log_mean += np.cumsum(rng.normal(0, 0.008, (series, WEEKS)), axis=1)
    days = _working_days(rng, of_year)[region]
    log_mean += rng.uniform(0.7, 1.2, (series, 1)) * np.log(days)
    # the platform moves: three applications once each, and everybody once
    for moved in rng.choice(applications, 3, replace=False):
        log_mean[application == moved, rng.integers(JUDGED_FROM, WEEKS)] += np.log(rng.choice([0.5, 1.7]))
    log_mean[:, rng.integers(JUDGED_FROM, WEEKS)] += np.log(0.7)
    # subscriptions that begin, with people finding their way in for four weeks, and subscriptions that end
    start = np.where(rng.random(series) < 0.2, rng.integers(1, WEEKS - 12, series), 0)
    end = np.where(rng.random(series) < 0.12, rng.integers(30, WEEKS, series), WEEKS)
    age = week - start[:, None] + 1
    log_mean += np.where(start[:, None] > 0, np.log(np.clip(age / 4, 0.25, 1)), 0)
    shift = np.full(series, -1)
    for moved in rng.choice(series, series // 20, replace=False):
        shift[moved] = rng.integers(JUDGED_FROM, WEEKS - 16)
        log_mean[moved, shift[moved] :] += np.log(rng.choice([0.5, 0.6, 1.6, 2.0]))

    mean = np.exp(log_mean)
    factor, events = _events(rng, shift, start, end, events_a_week)
    busy = mean * factor * np.exp(rng.normal(0, _NOISE, mean.shape) - _NOISE**2 / 2)
    # clicks of a visit are geometric, so that the variance is `spread` times the mean
    share = np.broadcast_to(2 / (spread[:, None] + 1), mean.shape)
    visits = rng.poisson(busy * share)
    counts = visits + np.where(visits > 0, rng.negative_binomial(np.maximum(visits, 1), share), 0).astype(float)
    counts[(age < 1) | (week >= end[:, None])] = np.nan
    counts[:, rng.choice(WEEKS, 3, replace=False)] = np.nan
    variance = spread[:, None] * mean + (_NOISE * mean) ** 2
    return World(counts, mean, variance, application, days, shift, events)


def _seasons(rng: np.random.Generator, applications: int, of_year: NDArray[np.int64]) -> NDArray[np.float64]:
    shape = np.zeros((applications, WEEKS))
    for line in shape:
        high, phase = rng.uniform(0.05, 0.3, 2), rng.uniform(0, 2 * np.pi, 2)
        line += high[0] * np.sin(2 * np.pi * of_year / 52 + phase[0])
        line += 0.5 * high[1] * np.sin(4 * np.pi * of_year / 52 + phase[1])
        line -= 0.35 * rng.uniform(0.5, 1.5) * np.exp(-0.5 * ((of_year - 30) / 3.0) ** 2)
        line += np.log(rng.uniform(0.45, 0.8)) * np.isin(of_year, [50, 51])
    return shape


def _working_days(rng: np.random.Generator, of_year: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of four regions: eight holidays a year that all have, three of each region's own."""
    days = np.full((4, WEEKS), 5.0)
    for holiday in rng.choice(52, 8, replace=False):
        days[:, of_year == holiday] -= 1
    for region in days:
        for holiday in rng.choice(52, 3, replace=False):
            region[of_year == holiday] -= 1
    return days / 5


def _events(
    rng: np.random.Generator,
    shift: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    events_a_week: float,
) -> tuple[NDArray[np.float64], list[Event]]:
    series = len(shift)
    factor, taken, events = np.ones((series, WEEKS)), np.zeros((series, WEEKS), dtype=bool), []
    for week in range(JUDGED_FROM, WEEKS):
        for i in np.flatnonzero(rng.random(series) < events_a_week):
            kind = rng.choice(["spike", "drop", "lasting drop", "decline"], p=[0.3, 0.2, 0.42, 0.08])
            weeks = {"spike": 1, "drop": 1, "lasting drop": 4, "decline": 20}[str(kind)]
            last = week + weeks
            is_free = not taken[i, max(week - 8, 0) : last + 5].any()
            if last > WEEKS or shift[i] >= 0 or start[i] + 12 > week or end[i] < last or not is_free:
                continue
            if kind == "spike":
                size = float(rng.choice([1.5, 2.0, 3.0, 5.0, 10.0]))
                factor[i, week] = size
            elif kind == "decline":
                size = 0.3
                factor[i, week:] = 0.3
                factor[i, week:last] = np.linspace(1, 0.3, weeks)
            else:
                size = float(rng.choice([0.7, 0.4, 0.0], p=[0.3, 0.5, 0.2]))
                factor[i, week:last] = size
            taken[i, week : WEEKS if kind == "decline" else last] = True
            events.append(Event(int(i), week, weeks, "drop" if "drop" in kind else str(kind), size))
    return factor, events
