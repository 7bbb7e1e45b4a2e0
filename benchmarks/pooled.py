"""The plain method that a detector has to beat: a robust level, the accounts of the application, working days.

Expected = the series' level (median of its last 26 weeks) x the median ratio of its application's accounts in the week
x working days. Score = the tail of a negative binomial over one, two and four weeks, its variance learned per series.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import nbinom, norm

from benchmarks.worlds import World

Floats = NDArray[np.float64]
HISTORY = 26


def tail_score(observed: Floats, mean: Floats, variance: Floats) -> Floats:
    """Standard normal value of a count under a negative binomial (mid-p): low for too few, high for too many."""
    mean = np.maximum(mean, 0.02)
    variance = np.maximum(variance, 1.001 * mean)
    size, share = mean**2 / (variance - mean), mean / variance
    below = nbinom.cdf(observed, size, share) - nbinom.pmf(observed, size, share) / 2
    found: Floats = norm.ppf(np.clip(below, 1e-15, 1 - 1e-15))
    beyond = np.abs(found) > 7.9
    pearson = (observed - mean) / np.sqrt(variance)
    found[beyond] = np.where(np.abs(pearson) > np.abs(found), pearson, found)[beyond]
    return found


def scores(world: World) -> dict[str, Floats]:
    """For each side (n, T), higher for more out of the ordinary; NaN where it cannot be told."""
    counts, days = world.counts, world.working_days
    ratio = np.full(counts.shape, np.nan)
    level = np.full(counts.shape, np.nan)
    for week in range(8, counts.shape[1]):
        past = (counts / days / np.where(np.isnan(ratio), 1, ratio))[:, max(week - HISTORY, 0) : week]
        enough = (~np.isnan(past)).sum(axis=1) >= 8
        level[enough, week] = np.nanmean(np.sort(past[enough], axis=1)[:, 3:-3], axis=1) if enough.any() else np.nan
        own = counts[:, week] / np.maximum(level[:, week] * days[:, week], 0.02)
        for application in np.unique(world.application):
            of = (world.application == application) & ~np.isnan(own) & (level[:, week] > 3)
            ratio[world.application == application, week] = np.median(own[of]) if of.sum() >= 5 else 1.0
    ratio = np.clip(np.where(np.isnan(ratio), 1, ratio), 0.05, 20)
    mean = level * days * ratio
    square = np.minimum((counts - mean) ** 2 / np.maximum(mean, 0.1) ** 2, 4.0)
    cv2 = np.full(counts.shape, np.nan)
    for week in range(16, counts.shape[1]):
        past = square[:, max(week - 52, 0) : week]
        few = (~np.isnan(past)).sum(axis=1) < 8
        of_series = np.nanmean(np.where(few[:, None], np.nan, past), axis=1, where=~np.isnan(past))
        cv2[:, week] = np.where(few, np.nan, of_series)
    variance = np.maximum(cv2 * mean**2, mean)
    return windowed(counts, mean, variance)


def windowed(counts: Floats, mean: Floats, variance: Floats) -> dict[str, Floats]:
    """The most telling of one, two and four weeks."""
    there = ~np.isnan(counts) & ~np.isnan(mean) & ~np.isnan(variance)
    parts = [np.where(there, x, 0.0) for x in (counts, mean, variance)]
    found = []
    for window in (1, 2, 4):
        sums = [np.cumsum(x, axis=1) for x in parts]
        sums = [s - np.pad(s, ((0, 0), (window, 0)))[:, : s.shape[1]] for s in sums]
        found.append(np.where(there, tail_score(*sums), np.nan))
    return {"down": -np.fmin.reduce(found), "up": np.fmax.reduce(found[:2])}


def oracle(world: World) -> dict[str, Floats]:
    """The same by the true mean and variance: the ceiling."""
    return windowed(world.counts, world.mean, world.variance)
