"""Spikes, usage drops, steps and slow declines in weekly counts of thousands of series.

Belongs here: arithmetic on arrays, without a database or a page. A series is one account with one application. Its
expected value is its own level (a discounted Poisson-gamma filter) x what the accounts of its application did
together in the same week x the working days of that week where it is. Whether a week is out of the ordinary, the tail
of a negative binomial tells over one, two and four weeks: a lasting drop of a small series shows in none of its weeks.

The family: Farrington et al. 1996 and Noufaily et al. 2013 (surveillance of weekly counts: quasi-Poisson, past
outbreaks weighted down), West and Harrison 1997 (discounting), Benjamini and Hochberg 1995 (false discoveries).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, ndtr, ndtri

from usage_pipeline.config.settings import AnomalySettings

Floats = NDArray[np.float64]
Ints = NDArray[np.signedinteger[Any]]
Bools = NDArray[np.bool_]

# part of every anomaly: raise it when the same counts would be anomalous in another way
VERSION = "1"
WINDOWS = (1, 2, 4)
KINDS = ("", "spike", "usage drop", "step up", "step down", "slow decline")
SPIKE, DROP, SHIFT_UP, SHIFT_DOWN, DECLINE = 1, 2, 3, 4, 5
_YEAR = 52
_DECLINE_WEEKS = 8
# the level itself wanders by so much a week, as a share: measured on the residuals, not on planted events
_LEVEL_DRIFT = 0.025
# weeks are busy and quiet beyond chance, as a share of the expected value
_WEEKLY_NOISE = 0.08
# a factor of a week is drawn towards what it was expected to be, as much as so many clicks would
_FACTOR_CLICKS = 20.0
_DISPERSION_WEEKS = 10.0


@dataclass(frozen=True)
class Series:
    """n series over T weeks, in order, without a gap."""

    counts: Floats  # (n, T), NaN where the week is not judged: unknown, or not a full subscribed week
    application: Ints  # (n,), from 0
    working_days: Floats  # (n, T), as a share of five


@dataclass(frozen=True)
class Judged:
    """What was expected of each series and week, and what is anomalous: (n, T), NaN or 0 where there is nothing."""

    expected: Floats  # of the week, as its peers went
    expected_before: Floats  # of the week, before anybody's was known
    variance: Floats
    window: Ints  # how many known weeks the strongest statistic sums, the last of them being this one
    observed_in_window: Floats
    expected_in_window: Floats
    variance_in_window: Floats
    z: Floats  # of that statistic, standard normal where nothing happens
    kind: Ints  # place in KINDS
    is_new: Bools  # the first week in which it is anomalous
    first_week: Ints  # the column in which it began
    is_strong: Bools
    weeks_known: Ints  # weeks of history before the week
    factor: Floats  # (applications, T): what the accounts of an application did together, 1 = their own level
    factor_before: Floats  # as the weeks before and last year let expect it
    factor_expected: Floats  # as that and all applications together let expect it
    factor_z: Floats  # NaN where too few accounts
    together: Floats  # (T,), what all accounts did together, 1 = as expected
    together_z: Floats


def judge(series: Series, rules: AnomalySettings, absolute_floor: float | None = None) -> Judged:
    """Judges every week by what was known at its end.

    absolute_floor: smallest change of an anomaly, where it is not that of the rules.
    """
    judge_ = _Judge(series, rules, rules.absolute_floor if absolute_floor is None else absolute_floor)
    for week in range(series.counts.shape[1]):
        judge_.step(week)
    return judge_.found()


class _Judge:
    """The state of all series from week to week."""

    def __init__(self, series: Series, rules: AnomalySettings, absolute_floor: float) -> None:
        self.series, self.rules, self.absolute_floor = series, rules, absolute_floor
        n, weeks = series.counts.shape
        self.known = ~np.isnan(series.counts)
        self.counts = np.where(self.known, series.counts, 0.0)
        # the weeks in which people find their way in say little about the level; a series that was there before the
        # first week on record is past them
        nth = np.cumsum(self.known, axis=1)
        self.is_settling = (nth <= rules.settling_weeks) & ~self.known[:, :1]
        self.applications = int(series.application.max(initial=-1)) + 1
        # the level: discounted clicks over discounted exposure, and how they stood after every week
        self.clicks, self.exposure, self.seen = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
        self.after = [(self.clicks, self.exposure, self.seen)]
        self.dispersion = np.full(n, 2.0)
        self._squares, self._squared = np.zeros(n), np.zeros(n)
        self.x = np.zeros((n, weeks))
        self.factor = np.full((self.applications, weeks), np.nan)
        self.factor_before, self.factor_expected, self.factor_z = (self.factor.copy() for _ in range(3))
        # the same without what was out of the ordinary, so that it is not expected to come back a year later
        self.season = self.factor.copy()
        self.moved_for = np.zeros(self.applications, dtype=np.int64)
        self.together, self.together_z = np.ones(weeks), np.full(weeks, np.nan)
        # before there is a level, the first weeks are compared with their own mean
        first = slice(0, rules.minimum_weeks)
        days = np.where(self.known[:, first], series.working_days[:, first], 0.0).sum(axis=1)
        self.first_level = self.counts[:, first].sum(axis=1) / np.maximum(days, 1e-9)
        # the event that runs: its direction, first week, weeks so far, weeks in which it was not seen
        self.direction, self.since = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.quiet, self.last_event = np.zeros(n, dtype=np.int64), np.full(n, -weeks)
        self.new_level_at = np.full(n, -weeks)
        self.out: dict[str, NDArray[Any]] = {name: np.full((n, weeks), np.nan) for name in _FLOATS}
        for name in ("window", "begins", "kind", "first_week", "weeks_known"):
            self.out[name] = np.zeros((n, weeks), dtype=np.int16)
        for name in ("is_new", "is_strong"):
            self.out[name] = np.zeros((n, weeks), dtype=bool)

    def step(self, week: int) -> None:
        known = self.known[:, week]
        self._factors(week)
        self._statistics(week)
        weight, residual = self._weights(week)
        self._disperse(week, weight)
        if week >= self.rules.minimum_weeks:
            self._anomaly(week, residual)
        # while an event runs, the usual level stays what it was
        known = known & ~self.is_settling[:, week] & (self.direction == 0)
        decay = np.where(known, self.rules.discount, 1.0)
        self.clicks = self.clicks * decay + np.where(known, weight * self.counts[:, week], 0.0)
        self.exposure = self.exposure * decay + np.where(known, weight * self.x[:, week], 0.0)
        self.seen = self.seen + self.known[:, week]
        self._take_new_levels(week)
        self.after.append((self.clicks, self.exposure, self.seen))

    def found(self) -> Judged:
        del self.out["begins"]
        common = ("factor", "factor_before", "factor_expected", "factor_z", "together", "together_z")
        return Judged(**self.out, **{name: getattr(self, name) for name in common})

    # ------------------------------------------------------------ expected

    def _factors(self, week: int) -> None:
        """What the accounts of each application did together in the week, without being led by a few of them."""
        application, rules = self.series.application, self.rules
        counts, ready, level = self.counts[:, week], self.known[:, week], self.first_level
        if week >= rules.minimum_weeks:
            has_level = self.seen >= rules.minimum_weeks
            # a week that never came among the first ones: nobody has so many yet
            ready = ready & (has_level if has_level.any() else self.exposure > 0)
            level = _level(self.clicks, self.exposure)
        usual = np.where(ready, level * self.series.working_days[:, week], 0.0)
        before = self._factor_before(week)
        spread = self.dispersion * usual + (2 * _WEEKLY_NOISE * usual) ** 2
        own = np.where(ready & (usual > 0), usual / np.maximum(spread, 1e-9), 0.0)
        weight = used = own
        factor, together = before, 1.0
        observed: NDArray[Any] = before
        expected: NDArray[Any] = before
        for _ in range(4):
            used = weight
            observed = np.bincount(application, weight * counts, self.applications)
            expected = np.bincount(application, weight * usual, self.applications)
            together = _together(observed, expected * before)
            factor = (observed + _FACTOR_CLICKS * together * before) / (expected + _FACTOR_CLICKS)
            mean = factor[application] * usual
            residual = np.abs(counts - mean) / np.sqrt(np.maximum(spread * factor[application], 1e-9))
            weight = own * np.minimum(1.0, 1.5 / np.maximum(residual, 1e-9))
        self.factor[:, week] = factor
        # each series is compared with the others: one that is alone would explain itself away
        drawn = _FACTOR_CLICKS * together * before[application]
        others = np.maximum(expected[application] - used * usual, 0.0)
        of_others = np.maximum(observed[application] - used * counts, 0.0)
        self.x[:, week] = (of_others + drawn) / (others + _FACTOR_CLICKS) * self.series.working_days[:, week]
        self.factor_before[:, week], self.factor_expected[:, week] = before, before * together
        self.together[week] = together
        accounts = np.bincount(application, ready & (usual > 0), self.applications)
        self._judge_factors(week, accounts)

    def _factor_before(self, week: int) -> Floats:
        """The factor as the weeks before and the same weeks of last year let expect it."""
        recent = self.season[:, max(week - 8, 0) : week]
        if recent.size == 0:
            return np.ones(self.applications)
        now: Floats = recent.mean(axis=1)
        a_year_ago = week - _YEAR
        if a_year_ago < 1:
            return now
        around = self.season[:, a_year_ago - 1 : a_year_ago + 2] @ np.array([0.2, 0.6, 0.2])
        # the weeks before it, or the first ones on record
        before = self.season[:, max(a_year_ago - 8, 0) : max(a_year_ago, 8)]
        found: Floats = now * around / before.mean(axis=1)
        return found

    def _judge_factors(self, week: int, accounts: NDArray[Any]) -> None:
        """How far common moves are from what was expected, in robust standard deviations of their past."""
        self.season[:, week] = self.factor[:, week]
        past = np.log(self.factor[:, :week] / self.factor_expected[:, :week])[:, -_YEAR:]
        if past.shape[1] < 2 * self.rules.minimum_weeks:
            return
        own = 1.4826 * np.median(np.abs(past), axis=1)
        spread = np.maximum(own, np.median(own))
        found = np.log(self.factor[:, week] / self.factor_expected[:, week]) / np.maximum(spread, 0.02)
        self.factor_z[:, week] = np.where(accounts >= self.rules.platform_accounts, found, np.nan)
        if accounts.sum() >= self.rules.platform_accounts:
            usually = 1.4826 * np.median(np.abs(np.log(self.together[:week][-_YEAR:])))
            self.together_z[week] = np.log(self.together[week]) / max(float(usually), 0.02)
        moved = np.abs(np.nan_to_num(self.factor_z[:, week])) >= self.rules.common_z
        expected = self.factor_expected[:, week]
        if abs(np.nan_to_num(self.together_z[week])) >= self.rules.common_z:
            moved, expected = np.ones(len(moved), dtype=bool), expected / self.together[week]
        self.season[moved, week] = expected[moved]
        self._take_new_seasons(week, moved)

    def _take_new_seasons(self, week: int, moved: Bools) -> None:
        """A common move that has lasted for long enough is how things are: the past is brought to its level."""
        side = np.where(moved, np.sign(np.log(self.factor[:, week] / self.season[:, week])), 0).astype(np.int64)
        self.moved_for = np.where((side != 0) & (np.sign(self.moved_for) == side), self.moved_for + side, side)
        for a in np.flatnonzero(np.abs(self.moved_for) >= self.rules.shift_weeks):
            start = week + 1 - self.rules.shift_weeks
            span = slice(start, week + 1)
            self.season[a, :start] *= np.median(self.factor[a, span] / self.season[a, span])
            self.season[a, span] = self.factor[a, span]
            self.moved_for[a] = 0

    def _forecast(self, week: int, window: int) -> tuple[Floats, Floats, Floats, Floats, Bools]:
        """Observed, expected, variance and z of the `window` weeks up to `week`, by the level before them."""
        clicks, exposure, _ = self.after[week + 1 - window]
        span = slice(week + 1 - window, week + 1)
        level = np.maximum(_level(clicks, exposure), 0.02)
        x = np.where(self.known[:, span], self.x[:, span], 0.0)
        each = level[:, None] * x
        spread = self.dispersion[:, None] * each + (_WEEKLY_NOISE * each) ** 2
        mean = each.sum(axis=1)
        # weeks before this one enter with no more than an anomaly's worth, so that a spike is told of once
        limit = self.rules.anomaly_z * np.sqrt(spread)
        counts = np.clip(self.counts[:, span], np.maximum(each - limit, 0), each + limit)
        counts[:, -1] = self.counts[:, week]
        variance = spread.sum(axis=1) + self._doubt(clicks, exposure, 10) * mean**2
        z = tail_z(counts.sum(axis=1), mean, variance)
        # weeks before a new level say nothing about it
        judged = self.known[:, week] & (exposure > 0) & (self.new_level_at < week + 1 - window)
        return self.counts[:, span].sum(axis=1), mean, variance, z, judged & (week >= self.rules.minimum_weeks)

    # ------------------------------------------------------------ out of the ordinary

    def _statistics(self, week: int) -> None:
        """The statistic of each window; the strongest is kept."""
        strongest = np.zeros(len(self.seen))
        self.out["weeks_known"][:, week] = self.seen
        for window in WINDOWS:
            if window > week:
                continue
            observed, mean, variance, z, judged = self._forecast(week, window)
            if window == 1:
                before = self.factor_before[self.series.application, week] * self.series.working_days[:, week]
                self.out["expected"][judged, week] = mean[judged]
                self.out["expected_before"][judged, week] = (mean * before / self.x[:, week])[judged]
                self.out["variance"][judged, week] = variance[judged]
            better = judged & (np.abs(z) > np.abs(strongest))
            strongest = np.where(better, z, strongest)
            self.out["begins"][better, week] = week + 1 - window
            weeks = self.known[:, week + 1 - window : week + 1].sum(axis=1)
            self._keep(week, better, weeks, observed, mean, variance, z)

    def _keep(self, week: int, where: Bools, window: Ints, *statistic: Floats) -> None:
        """What the anomaly of the week would be about: observed, expected and variance of its weeks, and z."""
        names = ("window", "observed_in_window", "expected_in_window", "variance_in_window", "z")
        for name, values in zip(names, (window, *statistic), strict=True):
            self.out[name][where, week] = values[where]

    def _doubt(self, clicks: Floats, exposure: Floats, weeks: int) -> Floats:
        """Relative variance of a level over `weeks` weeks: it is not known for sure, and wanders."""
        level = np.maximum(_level(clicks, exposure), 0.02)
        found: Floats = self.dispersion / np.maximum(level * exposure, 0.3) + weeks * _LEVEL_DRIFT**2
        return found

    def _weights(self, week: int) -> tuple[Floats, Floats]:
        """How much the week says about the usual level, and how far it lies from what was expected."""
        mean, variance = self.out["expected"][:, week], self.out["variance"][:, week]
        residual = np.nan_to_num((self.counts[:, week] - mean) / np.sqrt(variance))
        return np.minimum(1.0, (2.5 / np.maximum(np.abs(residual), 1e-9)) ** 2), residual

    def _disperse(self, week: int, weight: Floats) -> None:
        """Variance over mean, of each series, drawn towards that of all."""
        mean = self.out["expected"][:, week]
        judged = ~np.isnan(mean)
        square = np.minimum((self.counts[:, week] - mean) ** 2 / np.maximum(mean, 0.2), 25.0)
        self._squares = self._squares * 0.98 + np.where(judged, weight * square, 0.0)
        self._squared = self._squared * 0.98 + np.where(judged, weight, 0.0)
        total = self._squared.sum()
        of_all = np.clip(self._squares.sum() / total, 1.0, 4.0) if total > 50 else 2.0
        self.dispersion = np.maximum(
            1.0, (_DISPERSION_WEEKS * of_all + self._squares) / (_DISPERSION_WEEKS + self._squared)
        )

    def _anomaly(self, week: int, residual: Floats) -> None:
        """Decides about the week: what begins, what goes on, what has become a new level, what declines."""
        out, rules = self.out, self.rules
        z = out["z"][:, week]
        limit = np.where(z < 0, rules.drop_z, rules.anomaly_z)
        # a sum over weeks tells of this week only if it takes part
        takes_part = residual * np.sign(z) > 0.5
        is_judged = self.known[:, week] & (self.seen >= rules.peer_weeks)
        hit = is_judged & (np.abs(z) >= limit) & takes_part & self._above_floors(week)
        side = np.where(hit, np.sign(z), 0).astype(np.int64)

        goes_on = (
            (self.direction != 0)
            & self.known[:, week]
            & ((side == self.direction) | ((side == 0) & (residual * self.direction >= 1.0)))
        )
        begins = hit & ~goes_on
        self.quiet = np.where(goes_on | begins, 0, self.quiet + self.known[:, week])
        self.since = np.where(begins, out["begins"][:, week], self.since)
        over = ~goes_on & ~begins & (self.quiet >= 2)
        self.direction = np.where(begins, side, np.where(over, 0, self.direction))
        anomalous = goes_on | begins
        self.last_event = np.where(anomalous, week, self.last_event)

        kind = np.where(anomalous, np.where(self.direction > 0, SPIKE, DROP), 0)
        lasts = goes_on & (week + 1 - self.since >= rules.shift_weeks)
        kind = np.where(lasts, np.where(self.direction > 0, SHIFT_UP, SHIFT_DOWN), kind)
        declines = self._declines(week, kind == 0)
        self.last_event = np.where(declines, week, self.last_event)
        out["kind"][:, week] = np.where(declines, DECLINE, kind)
        out["is_new"][:, week] = begins | declines | lasts
        out["first_week"][:, week] = np.where(declines, max(week + 1 - rules.decline_weeks, 0), self.since)
        # what is below the floors, or no longer takes part, was tested and is no discovery
        candidate = np.where(hit | declines, out["z"][:, week], 0.0)
        out["is_strong"][:, week] = _discoveries(candidate, is_judged, rules.false_discovery_rate) & (hit | declines)

    def _above_floors(self, week: int) -> Bools:
        change = np.abs(self.out["observed_in_window"][:, week] - self.out["expected_in_window"][:, week])
        found: Bools = change >= self.rules.relative_floor * self.out["expected_in_window"][:, week]
        found &= change >= self.absolute_floor
        return found

    def _declines(self, week: int, can_be: Bools) -> Bools:
        """The last eight weeks against the level that the series had half a year ago, and still going down.

        Where it is so, those weeks are what the anomaly is about.
        """
        rules = self.rules
        start = week + 1 - rules.decline_weeks
        if start < rules.minimum_weeks:
            return np.zeros(len(self.seen), dtype=bool)
        clicks, exposure, seen = self.after[start]
        level = np.maximum(_level(clicks, exposure), 0.02)

        def of(first: int, last: int) -> tuple[Floats, Floats]:
            x = np.where(self.known[:, first:last], self.x[:, first:last], 0.0).sum(axis=1)
            return self.counts[:, first:last].sum(axis=1), np.maximum(level * x, 1e-9)

        half = _DECLINE_WEEKS // 2
        recent, mean = of(week + 1 - _DECLINE_WEEKS, week + 1)
        late, late_mean = of(week + 1 - half, week + 1)
        early, early_mean = of(week + 1 - _DECLINE_WEEKS, week + 1 - half)
        variance = self.dispersion * mean + self._doubt(clicks, exposure, rules.decline_weeks) * mean**2
        z = (recent - mean) / np.sqrt(variance)
        found: Bools = (
            can_be
            & self.known[:, week]
            & (seen >= rules.minimum_weeks)
            & (z <= -rules.drop_z)
            & (recent <= (1 - rules.decline_share) * mean)
            & (mean - recent >= 2 * self.absolute_floor)
            & (late / late_mean < early / early_mean)
            & (self.last_event < start)
            & (self.new_level_at < start)
        )
        self._keep(week, found, np.full(len(z), _DECLINE_WEEKS), recent, mean, variance, z)
        return found

    def _take_new_levels(self, week: int) -> None:
        """A level that has stayed new for long enough becomes the usual one."""
        kind = self.out["kind"][:, week]
        shifted = (kind == SHIFT_UP) | (kind == SHIFT_DOWN)
        for i in np.flatnonzero(shifted):
            span = slice(max(self.since[i], week + 1 - self.rules.shift_weeks), week + 1)
            known = self.known[i, span]
            self.clicks[i] = self.counts[i, span][known].sum()
            self.exposure[i] = self.x[i, span][known].sum()
        self.direction = np.where(shifted, 0, self.direction)
        self.new_level_at = np.where(shifted, week, self.new_level_at)


_FLOATS = (
    "expected",
    "expected_before",
    "variance",
    "observed_in_window",
    "expected_in_window",
    "variance_in_window",
    "z",
)


def _together(observed: NDArray[Any], expected: NDArray[Any]) -> float:
    """By what share all applications moved: as most of them did, so that one of them moves nobody else."""
    found = (observed + _FACTOR_CLICKS) / (expected + _FACTOR_CLICKS)
    there = found[expected > _FACTOR_CLICKS]
    if len(there) >= 3:
        return float(np.median(there))
    if len(there) == 2:
        # of two, what both did
        return float(there[np.argmin(np.abs(np.log(there)))])
    return float((observed.sum() + _FACTOR_CLICKS) / (expected.sum() + _FACTOR_CLICKS))


def _level(clicks: Floats, exposure: Floats) -> Floats:
    return clicks / np.maximum(exposure, 1e-9)


def tail_z(observed: Floats, mean: Floats, variance: Floats) -> Floats:
    """Standard normal value of a count: exact negative-binomial tail (mid-p) where it could matter, else Pearson's."""
    mean = np.maximum(mean, 1e-6)
    variance = np.maximum(variance, 1.0001 * mean)
    z = (observed - mean) / np.sqrt(variance)
    far = np.abs(z) > 1.2
    m, v, k = mean[far], variance[far], observed[far]
    size, share = m * m / (v - m), m / v
    below = np.where(k > 0, betainc(size, np.maximum(k, 1e-9), share), 0.0)
    p_value = (below + betainc(size, k + 1, share)) / 2
    tail = ndtri(np.clip(p_value, 1e-15, 1 - 1e-15))
    # beyond what a tail can hold, by Pearson's, so that the strongest stay in order
    beyond = np.abs(tail) > 7.9
    z[far] = np.where(beyond, np.sign(tail) * np.maximum(np.abs(tail), np.abs(z[far])), tail)
    return z


def _discoveries(z: Floats, judged: Bools, rate: float) -> Bools:
    """Benjamini and Hochberg over the series of a week; three windows were looked at, in both directions."""
    found = np.zeros(len(z), dtype=bool)
    p_value = np.minimum(1.0, 4 * ndtr(-np.abs(np.nan_to_num(z))))
    order = np.flatnonzero(judged)[np.argsort(p_value[judged])]
    if len(order):
        below = np.flatnonzero(p_value[order] <= rate * np.arange(1, len(order) + 1) / len(order))
        found[order[: below[-1] + 1 if len(below) else 0]] = True
    return found
