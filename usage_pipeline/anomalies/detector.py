"""Spikes, usage drops, steps and slow declines in weekly counts of thousands of series.

Belongs here: arithmetic on arrays, without a database or a page. A series is one account with one application. Its
expected value is its own level (a discounted Poisson-gamma filter) x what the accounts of its application did
together in the same week x the working days of that week where it is. How far a week is from that, the tail of a
negative binomial tells over one, two and four weeks: a lasting drop of a small series shows in none of its weeks. How
far is out of the ordinary, the past of the lake itself tells (`calibration.py`).

The family: Farrington et al. 1996 and Noufaily et al. 2013 (surveillance of weekly counts: overdispersed, past
outbreaks weighted down), West and Harrison 1997 (discounting), Efron 2004 (empirical null, false discoveries).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, ndtr, ndtri

from usage_pipeline.anomalies.calibration import EVERY, MEMORY, SERIES_WEEKS, Calibration, cell_of
from usage_pipeline.anomalies.levels import Levels
from usage_pipeline.anomalies.scatter import Scatter
from usage_pipeline.config.settings import AnomalySettings

Floats = NDArray[np.float64]
Ints = NDArray[np.signedinteger[Any]]
Bools = NDArray[np.bool_]

# part of every anomaly: raise it when the same counts would be anomalous in another way
VERSION = "4"
WINDOWS = (1, 2, 4)
KINDS = ("", "spike", "usage drop", "step up", "step down", "slow decline")
SPIKE, DROP, SHIFT_UP, SHIFT_DOWN, DECLINE = 1, 2, 3, 4, 5
_YEAR = 52
_DECLINE_WEEKS, _DECLINE_KNOWN = 8, 6
# the level itself wanders by so much a week, as a share of the expected value, but by no more than a part of what the
# series strays by anyhow
_LEVEL_DRIFT, _DRIFT_OF_SCATTER = 0.015, 0.3
# a normal value within which no week is called strong
_LEAST_STRONG = 3.0
# an application's accounts have moved together in a week from such a share on
_MOVED = 0.2
# a series is irregular where it is zero in so many weeks, and so many times more often than its mean would let expect,
# or in use so many times more seldom
_ZERO_SHARE, _TIMES_RANDOM = 0.25, 2.0
# the same week of last year, and those beside it
_AROUND = np.array([0.2, 0.6, 0.2])
# a season of an application goes no further: where next to nothing is used, a year ago may be any multiple of before
_MOST_SEASON = 20.0
# what a series did a year ago is a season from such a share of its level on
_SEASON = 0.2
# what a week of use strays by in a series that is mostly zero, as a logarithm, and how many weeks that counts for
_BURST, _BURST_WEEKS = 0.8, 6.0
# the smallest change as a share: so many standard deviations of a week, and never less than this
_FLOOR_OF_SCATTER, _LEAST_SHARE = 3.0, 0.1
# an anomaly goes on while the normal value of its weeks is at least
_GOES_ON = 1.8
# after a step down a series may come back for so long
_RETURN_WEEKS = 26
# of what may be listed falsely, drops get this part: they cost more
_DROPS = 0.8
# some weeks beyond the limit are below the floors: so much more may lie beyond it
_BEYOND = 1.1
# what an account does beyond so many standard deviations leads its application no further
_CUT = 1.5
# where fewer weeks than this share are weeks of use, each of them lies beyond the cut: by such accounts nothing would
# be used, week after week, and levels would rise without end to make up for it
_LEAST_USED = 1 / (1 + _CUT**2)
# a factor of a week is drawn towards what it was expected to be, as much as so many clicks would
_FACTOR_CLICKS = 20.0


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
    z: Floats  # of that statistic, as the past of the lake lets read it: standard normal in ordinary weeks
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
    is_calibrated: bool  # whether thresholds were learned from this lake's own past


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
        self.drop_limit = float(-ndtri(_BEYOND * _DROPS * rules.listed_share))
        self.spike_limit = float(-ndtri(_BEYOND * (1 - _DROPS) * rules.listed_share))
        n, weeks = series.counts.shape
        # a week of all series is read and written at a time, so it lies together in memory
        self.known = np.asfortranarray(~np.isnan(series.counts))
        self.counts = np.asfortranarray(np.where(self.known, series.counts, 0.0))
        self.working_days = np.asfortranarray(series.working_days)
        # the weeks in which people find their way in say little about the level; a series that was there before the
        # first week on record is past them
        nth = np.cumsum(self.known, axis=1)
        self.is_settling = np.asfortranarray((nth <= rules.settling_weeks) & ~self.known[:, :1])
        self.applications = int(series.application.max(initial=-1)) + 1
        # the level: discounted clicks over discounted exposure, and how they stood after every week
        self.clicks, self.exposure, self.seen = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
        self.levels = Levels(n, rules.discounts)
        self.after = [(self.clicks, self.exposure, self.seen)]
        self.scatter = Scatter(n)
        self.down, self.up = Calibration(), Calibration.of_spikes()
        # the raw scores of every week and where they belong, which later ones are read by
        self.raw = {side: _filled(n, weeks, np.nan) for side in (-1, 1)}
        self.normal = {side: _filled(n, weeks, np.nan) for side in (-1, 1)}
        self.cells = _filled(n, weeks, 0, np.int16)
        # weeks of events of high confidence do not help to say what is ordinary
        self.certain, self.is_certain = _filled(n, weeks, False, bool), np.zeros(n, dtype=bool)
        self.zeros, self.zero_runs, self.zero_weeks, self.gap, self.total = (np.zeros(n) for _ in range(5))
        self.used_weeks, self.logs, self.squared_logs = (np.zeros(n) for _ in range(3))
        # exposure: working days x what the others of the application did, and the same as expected before
        self.x, self.x_before = _filled(n, weeks, 0.0), _filled(n, weeks, 0.0)
        # the first of them in known weeks alone, 0 in others
        self.x_known = _filled(n, weeks, 0.0)
        # what a series did in the same weeks of last year against that whole year; 1 where that says nothing
        self.season_of_own = {side: _filled(n, weeks, 1.0) for side in (-1, 1)}
        self.season_doubt = {side: _filled(n, weeks, 0.0) for side in (-1, 1)}
        self.year_level = np.zeros(n)
        self.factor = np.full((self.applications, weeks), np.nan)
        self.factor_before, self.factor_expected, self.factor_z = (self.factor.copy() for _ in range(3))
        # the same without what was out of the ordinary, so that it is not expected to come back a year later
        self.season = self.factor.copy()
        self.moved_for = np.zeros(self.applications, dtype=np.int64)
        self.together, self.together_z = np.ones(weeks), np.full(weeks, np.nan)
        # before there is a level, the first weeks are compared with their own mean
        first = slice(0, rules.minimum_weeks)
        days = np.where(self.known[:, first], self.working_days[:, first], 0.0).sum(axis=1)
        self.first_level = self.counts[:, first].sum(axis=1) / np.maximum(days, 1e-9)
        # the event that runs: its direction, first week, weeks so far, weeks in which it was not seen
        self.direction, self.since = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.quiet, self.last_event = np.zeros(n, dtype=np.int64), np.full(n, -weeks)
        self.new_level_at = np.full(n, -weeks)
        self.declined_at = np.full(n, -weeks)
        # when a series last stepped down, and from what level
        self.stepped_down_at, self.level_left = np.full(n, -weeks), np.zeros(n)
        self.out: dict[str, NDArray[Any]] = {name: _filled(n, weeks, np.nan) for name in _FLOATS}
        for name in ("window", "begins", "kind", "first_week", "weeks_known"):
            self.out[name] = _filled(n, weeks, 0, np.int16)
        for name in ("is_new", "is_strong"):
            self.out[name] = _filled(n, weeks, False, bool)

    def step(self, week: int) -> None:
        known = self.known[:, week]
        self._factors(week)
        self._own_season(week)
        self._statistics(week)
        weight, residual = self._weights(week)
        if week >= self.rules.minimum_weeks:
            self._anomaly(week, residual)
        self._learn(week)
        # while an event or a season runs, the usual level stays what it was
        known = known & ~self.is_settling[:, week] & (self.direction == 0) & ~self.as_last_year
        self.levels.take(self.counts[:, week], self.x[:, week], weight, self.scatter, known)
        self.clicks, self.exposure = self.levels.best()
        self.seen = self.seen + self.known[:, week]
        self._take_new_levels(week)
        self.after.append((self.clicks, self.exposure, self.seen))

    def found(self) -> Judged:
        del self.out["begins"]
        common = ("factor", "factor_before", "factor_expected", "factor_z", "together", "together_z")
        return Judged(
            **self.out,
            **{name: getattr(self, name) for name in common},
            is_calibrated=self.down.is_calibrated and self.up.is_calibrated,
        )

    # ------------------------------------------------------------ expected

    def _factors(self, week: int) -> None:
        """What the accounts of each application did together in the week, without being led by a few of them."""
        application, rules = self.series.application, self.rules
        counts, ready, level = self.counts[:, week], self.known[:, week], self.first_level
        # by their weeks so far, or by the first ones
        so_far = slice(0, max(week, rules.minimum_weeks))
        is_used = (self.counts[:, so_far] > 0).sum(axis=1) >= _LEAST_USED * self.known[:, so_far].sum(axis=1)
        if week >= rules.minimum_weeks:
            has_level = self.seen >= rules.minimum_weeks
            # a week that never came among the first ones: nobody has so many yet
            ready = ready & (has_level if has_level.any() else self.exposure > 0)
            level = _level(self.clicks, self.exposure)
        usual = np.where(ready & is_used, level * self.working_days[:, week], 0.0)
        before = self._factor_before(week, self.season, _AROUND)
        spread = self.scatter.variance(usual)
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
            weight = own * np.minimum(1.0, _CUT / np.maximum(residual, 1e-9))
        # what an application did a year ago is expected where it comes again, and not missed where it does not
        seen = (observed + 1e-9) / (expected + 1e-9)
        as_last_year = np.clip(seen, *self._bounds_of_last_year(week))
        is_nearer = np.abs(np.log(seen / as_last_year)) < np.abs(np.log(seen / before))
        before = np.where(is_nearer & (expected > _FACTOR_CLICKS), as_last_year, before)
        together = _together(observed, expected * before)
        factor = (observed + _FACTOR_CLICKS * together * before) / (expected + _FACTOR_CLICKS)
        self.factor[:, week] = factor
        # each series is compared with the others: one that is alone would explain itself away
        drawn = _FACTOR_CLICKS * together * before[application]
        others = np.maximum(expected[application] - used * usual, 0.0)
        of_others = np.maximum(observed[application] - used * counts, 0.0)
        days = self.working_days[:, week]
        self.x[:, week] = (of_others + drawn) / (others + _FACTOR_CLICKS) * days
        self.x_known[:, week] = np.where(self.known[:, week], self.x[:, week], 0.0)
        self.x_before[:, week] = before[application] * days
        self.factor_before[:, week], self.factor_expected[:, week] = before, before * together
        self.together[week] = together
        accounts = np.bincount(application, usual > 0, self.applications)
        self._judge_factors(week, accounts)

    def _factor_before(self, week: int, past: Floats, weights: Floats) -> Floats:
        """The factor as the weeks before, and the same weeks of `past`'s last year by `weights`, let expect it."""
        recent = self.season[:, max(week - 8, 0) : week]
        if recent.size == 0:
            return np.ones(self.applications)
        now: Floats = recent.mean(axis=1)
        a_year_ago = week - _YEAR
        if a_year_ago < 1:
            return now
        around = past[:, a_year_ago - 1 : a_year_ago + 2] @ weights
        # the weeks before it, or the first ones on record
        before = past[:, max(a_year_ago - 8, 0) : max(a_year_ago, 8)]
        found: Floats = np.clip(now * around / before.mean(axis=1), 1 / _MOST_SEASON, _MOST_SEASON)
        return found

    def _bounds_of_last_year(self, week: int) -> tuple[Floats, Floats]:
        """What applications really did around the same week of last year: a season begins a week earlier or later."""
        found = np.stack([self._factor_before(week, self.factor, weights) for weights in (_AROUND, *np.eye(3))])
        return found.min(axis=0), found.max(axis=0)

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

    def _forecast(self, week: int, window: int, exposure_of: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Observed, expected, variance and z of the `window` weeks up to `week`, by the level before them."""
        clicks, exposure, _ = self.after[week + 1 - window]
        span = slice(week + 1 - window, week + 1)
        level = np.maximum(_level(clicks, exposure), 0.02)
        each = level[:, None] * np.where(self.known[:, span], exposure_of[:, span], 0.0)
        spread = self.scatter.variance(each)
        mean = each.sum(axis=1)
        # weeks before this one enter with no more than an anomaly's worth, so that a spike is told of once
        limit = 4.0 * np.sqrt(spread)
        counts = np.clip(self.counts[:, span], np.maximum(each - limit, 0), each + limit)
        counts[:, -1] = self.counts[:, week]
        variance = self.scatter.of_sum(spread) + self._doubt(clicks, exposure, 4) * mean**2
        return self.counts[:, span].sum(axis=1), mean, variance, tail_z(counts.sum(axis=1), mean, variance)

    # ------------------------------------------------------------ out of the ordinary

    def _statistics(self, week: int) -> None:
        """How far each series is below and above what was expected, over the most telling of the windows."""
        self.out["weeks_known"][:, week] = self.seen
        lowest, highest = np.zeros(len(self.seen)), np.zeros(len(self.seen))
        self.is_judged, self.as_last_year, self.irregular = (np.zeros(len(self.seen), dtype=bool) for _ in range(3))
        if week == 0:
            return
        self.irregular = self._irregular()
        self.best: dict[int, dict[str, NDArray[Any]]] = {side: {} for side in (-1, 1)}
        for window in WINDOWS:
            if window > week:
                continue
            observed, mean, variance, z = self._forecast(week, window, self.x)
            first = week + 1 - window
            # weeks before a new level say nothing about it
            judged = self.known[:, week] & (self.after[first][1] > 0) & (self.new_level_at < first)
            judged &= week >= self.rules.minimum_weeks
            if window == 1:
                before = self.factor_before[self.series.application, week] * self.working_days[:, week]
                self.out["expected"][judged, week] = mean[judged]
                self.out["expected_before"][judged, week] = (mean * before / self.x[:, week])[judged]
                self.out["variance"][judged, week] = variance[judged]
                self.is_judged = judged
            z = self._beside_a_common_move(week, window, z)
            z = self._unless_as_last_year(week, window, z)
            weeks = self.known[:, first : week + 1].sum(axis=1)
            for side, strongest in ((-1, lowest), (1, highest)):
                better = judged & (z * side > strongest)
                strongest[better] = (z * side)[better]
                self._choose(side, better, np.full(len(z), first), weeks, observed, mean, variance)
        irregular = self.irregular
        lowest = np.where(irregular, self._silence(week), lowest)
        highest = np.where(irregular, self._burst(week), highest)
        self.cells[:, week] = cell_of(
            np.where(irregular, self.total / np.maximum(self.zero_weeks, 1), self.scatter.mean),
            self.scatter.relative(),
            irregular,
        )
        for side, strongest, calibration in ((-1, lowest, self.down), (1, highest, self.up)):
            self.raw[side][self.is_judged, week] = strongest[self.is_judged]
            read = calibration.normal(strongest, self.cells[:, week])
            self.normal[side][self.is_judged, week] = read[self.is_judged]
        self._keep_the_stronger(week)

    def _beside_a_common_move(self, week: int, window: int, z: Floats) -> Floats:
        """Where an application moved, a series that went along is ordinary, and so is one that stayed as it was."""
        span = slice(week + 1 - window, week + 1)
        moved = np.abs(np.log(self.factor[:, span] / self.factor_before[:, span])) >= _MOVED
        concerned = np.nan_to_num(moved).any(axis=1)[self.series.application]
        if not concerned.any():
            return z
        alone = self._forecast(week, window, self.x_before)[3]
        nearer = np.where(np.sign(alone) == np.sign(z), np.sign(z) * np.minimum(np.abs(alone), np.abs(z)), 0.0)
        found: Floats = np.where(concerned, nearer, z)
        return found

    def _choose(self, side: int, where: Bools, *values: NDArray[Any]) -> None:
        names = ("begins", "window", "observed_in_window", "expected_in_window", "variance_in_window")
        for name, given in zip(names, values, strict=True):
            kept = self.best[side].setdefault(name, np.array(given))
            kept[where] = given[where]

    def _keep_the_stronger(self, week: int) -> None:
        """What the anomaly of the week would be about: the side that is farther beyond its limit."""
        down, up = self.normal[-1][:, week], self.normal[1][:, week]
        is_down = down - self.drop_limit >= up - self.spike_limit
        for side, of_side in ((-1, is_down), (1, ~is_down)):
            of_side = of_side & self.is_judged
            for name, values in self.best[side].items():
                self.out[name][of_side, week] = values[of_side]
            self.out["z"][of_side, week] = side * self.normal[side][of_side, week]

    # ------------------------------------------------------------ as last year

    def _own_season(self, week: int) -> None:
        """What each series did around the same week of last year, against its mean of the year around that.

        A season does not begin in the same week each year: the lowest and the highest of three weeks bound it.
        """
        then = week - _YEAR
        if then < 4:
            return

        def of(weeks: slice) -> tuple[Floats, Floats]:
            x = self.x_known[:, weeks].sum(axis=1)
            return self.counts[:, weeks].sum(axis=1) / np.maximum(x, 1e-9), x

        year = slice(max(then - 26, 0), then + 26)
        base, of_year = of(year)
        of_year_before, of_now = of(slice(week - _YEAR, week))
        # weeks before a step say nothing about the level that a season multiplies
        stepped = self.new_level_at >= week - _YEAR
        self.year_level = np.where(stepped, _level(self.clicks, self.exposure), of_year_before)
        enough = (self.known[:, year].sum(axis=1) >= 20) & (of_now > 0) & (of_year > 0)
        doubt = self.scatter.variance(np.maximum(base, 0.05)) / np.maximum(base, 0.05) ** 2
        for side in (-1, 1):
            season, of_doubt = np.ones(len(base)), np.zeros(len(base))
            for weeks, number in (
                (slice(then - 1, then + 2), 3),
                *((slice(t, t + 1), 1) for t in range(then - 1, then + 2)),
            ):
                level, x = of(weeks)
                found = np.clip(level / np.maximum(base, 1e-9), 0.02, 50)
                clear = (found - 1) * side >= np.maximum(_SEASON, 2 * np.sqrt(doubt / number))
                better = enough & (x > 0) & clear & ((found - season) * side > 0)
                season, of_doubt = np.where(better, found, season), np.where(better, doubt / number, of_doubt)
            self.season_of_own[side][:, week], self.season_doubt[side][:, week] = season, of_doubt

    def _unless_as_last_year(self, week: int, window: int, z: Floats) -> Floats:
        """A series that did the same a year ago is as expected."""
        span = slice(week + 1 - window, week + 1)
        found = z.copy()
        for side in (-1, 1):
            seasons = self.season_of_own[side]
            rows = np.flatnonzero((seasons[:, week] != 1.0) & (z * side > 1.0) & ~self.irregular)
            if not len(rows):
                continue
            each = self.year_level[rows, None] * seasons[rows, span] * self.x[rows, span]
            each = np.where(self.known[rows, span], np.maximum(each, 0.02), 0.0)
            mean, scatter = each.sum(axis=1), self.scatter.of(rows)
            variance = scatter.of_sum(scatter.variance(each)) + (self.season_doubt[side][rows, week] + 0.01) * mean**2
            seasonal = tail_z(self.counts[rows, span].sum(axis=1), mean, variance)
            # within what it did then, or beyond it on the other side of nothing
            nearer = np.where(seasonal * side > 0, np.minimum(np.abs(seasonal), np.abs(z[rows])), 0.0)
            found[rows] = side * nearer
            if window == 1:
                explained = rows[nearer < np.abs(z[rows]) - 0.5]
                here = np.isin(rows, explained)
                self.as_last_year[explained] = True
                self.out["expected"][explained, week] = mean[here]
                self.out["variance"][explained, week] = variance[here]
        return found

    # ------------------------------------------------------------ mostly zero

    def _irregular(self) -> Bools:
        """Series that are zero in many weeks and large in others: campaigns, seasons, single people."""
        weeks = np.maximum(self.zero_weeks, 1)
        share = self.zeros / weeks
        at_random = np.exp(-self.total / weeks / 2.0)
        # far more zeros than at random, or, where zeros are the rule, far fewer weeks of use, each of them a large one
        is_clumped = (share >= _TIMES_RANDOM * at_random) | (_TIMES_RANDOM * (1 - share) <= 1 - at_random)
        # what was hardly used yet has nothing to be compared with: its first use is no spike, nor its second
        is_unused = (self.used_weeks < 3) & (self.zero_weeks > self.used_weeks)
        found: Bools = (self.zero_weeks >= 8) & (share >= _ZERO_SHARE) & is_clumped | is_unused
        return found

    def _silence(self, week: int) -> Floats:
        """How unusual the length of the silence is for a series that is often silent, as a normal value."""
        share = (self.zeros + 0.5) / (self.zero_weeks + 1)
        stays = (self.zero_runs + 0.5) / (self.zeros + 1)
        gap = np.where(self.counts[:, week] == 0, self.gap + 1, 0)
        log_p = np.log(share) + (gap - 1) * np.log(np.clip(stays, 0.05, 0.98))
        found: Floats = np.where(gap > 0, -ndtri(np.exp(np.maximum(log_p, -60.0))), 0.0)
        return np.maximum(found, 0.0)

    def _burst(self, week: int) -> Floats:
        """How large the week is among those in which such a series was used at all, as a normal value."""
        there = np.maximum(self.used_weeks, 1)
        mean = self.logs / there
        spread = np.maximum(self.squared_logs - self.used_weeks * mean**2, 0.0)
        deviation = np.sqrt((_BURST_WEEKS * _BURST**2 + spread) / (_BURST_WEEKS + self.used_weeks))
        now = np.log(np.maximum(self.counts[:, week], 1.0))
        doubt = np.sqrt(1 + 1 / there)
        found: Floats = np.where(self.used_weeks >= 5, (now - mean) / (deviation * doubt), 0.0)
        return np.maximum(found, 0.0)

    # ------------------------------------------------------------ learning

    def _learn(self, week: int) -> None:
        """Takes the week into what is known of scatter, of zeros, and of what is ordinary."""
        judged = self.is_judged
        known = self.known[:, week] & ~self.is_settling[:, week]
        mean = self.out["expected"][:, week]
        doubt = self._doubt(self.clicks, self.exposure, 4) * np.nan_to_num(mean) ** 2
        self.scatter.learn(self.counts[:, week], mean, doubt, judged & known)
        zero = known & (self.counts[:, week] == 0)
        self.zero_runs = self.zero_runs + (zero & (self.gap > 0))
        self.zeros, self.zero_weeks = self.zeros + zero, self.zero_weeks + known
        self.total = self.total + np.where(known, self.counts[:, week], 0.0)
        used, logs = known & ~zero, np.log(np.maximum(self.counts[:, week], 1.0))
        self.used_weeks, self.logs = self.used_weeks + used, self.logs + np.where(used, logs, 0.0)
        self.squared_logs = self.squared_logs + np.where(used, logs**2, 0.0)
        self.gap = np.where(known, np.where(zero, self.gap + 1, 0), self.gap)
        if week % EVERY == EVERY - 1:
            self._calibrate(week)

    def _calibrate(self, week: int) -> None:
        """Reads the past year anew: which scores are ordinary here."""
        weeks = min(max(MEMORY, -(-2 * SERIES_WEEKS // max(len(self.seen), 1))), 2 * MEMORY)
        span = slice(max(week + 1 - weeks, self.rules.minimum_weeks + 4), week + 1)
        for side, calibration in ((-1, self.down), (1, self.up)):
            calibration.learn(self.raw[side][:, span], self.cells[:, span], self.certain[:, span])

    def _keep(self, week: int, where: Bools, window: Ints, *statistic: Floats) -> None:
        """Replaces what the anomaly of the week would be about."""
        names = ("window", "observed_in_window", "expected_in_window", "variance_in_window", "z")
        for name, values in zip(names, (window, *statistic), strict=True):
            self.out[name][where, week] = values[where]

    def _doubt(self, clicks: Floats, exposure: Floats, weeks: int) -> Floats:
        """Relative variance of a level over `weeks` weeks: it is not known for sure, and wanders."""
        one_week = self.scatter.variance(np.maximum(_level(clicks, exposure), 0.02))
        level = np.maximum(_level(clicks, exposure), 0.02)
        weeks_of_memory = np.maximum(exposure, 0.3)
        found: Floats = one_week / level**2 / weeks_of_memory + weeks * self._drift() ** 2
        return found

    def _drift(self) -> Floats:
        """What a level wanders by in a week, as a share."""
        return np.minimum(_LEVEL_DRIFT, np.maximum(_DRIFT_OF_SCATTER * self.scatter.relative(), 0.003))

    def _weights(self, week: int) -> tuple[Floats, Floats]:
        """How much the week says about the usual level, and how far it lies from what was expected."""
        mean, variance = self.out["expected"][:, week], self.out["variance"][:, week]
        residual = np.nan_to_num((self.counts[:, week] - mean) / np.sqrt(variance))
        weight = np.minimum(1.0, (2.5 / np.maximum(np.abs(residual), 1e-9)) ** 2)
        # of a series that is mostly zero, weeks of use are no exceptions; without a level nothing is one
        return np.where(self.irregular | (self.seen < self.rules.minimum_weeks), 1.0, weight), residual

    def _anomaly(self, week: int, residual: Floats) -> None:
        """Decides about the week: what begins, what goes on, what has become a new level, what declines."""
        out, rules = self.out, self.rules
        z = out["z"][:, week]
        limit = np.where((z < 0) | self._comes_back(week), self.drop_limit, self.spike_limit)
        # a sum over weeks tells of this week only if it takes part
        takes_part = residual * np.sign(z) > 0.5
        is_judged = self.known[:, week] & (self.seen >= rules.peer_weeks)
        hit = is_judged & (np.abs(z) >= limit) & takes_part & self._above_floors(week)
        side = np.where(hit, np.sign(z), 0).astype(np.int64)

        goes_on = (
            (self.direction != 0)
            & self.known[:, week]
            & (
                (side == self.direction)
                | ((side == 0) & (residual * self.direction >= 1.0) & (z * self.direction >= _GOES_ON))
            )
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
        lost_over = self._declines(week, kind == 0)
        declines = lost_over > 0
        self.last_event = np.where(declines, week, self.last_event)
        out["kind"][:, week] = np.where(declines, DECLINE, kind)
        out["is_new"][:, week] = begins | declines | lasts
        out["first_week"][:, week] = np.where(declines, np.maximum(week + 1 - lost_over, 0), self.since)
        # what is below the floors, or no longer takes part, was tested and is no discovery
        self._take_as_certain(week, anomalous, self._strong(week) & (hit | declines))

    def _comes_back(self, week: int) -> Bools:
        """Series that stepped down and are nearer to where they were than to where they went.

        A return is expected more than any other rise is, so that it needs no more than a drop does.
        """
        now = np.maximum(_level(self.clicks, self.exposure), 0.02)
        expected = self.out["expected_in_window"][:, week]
        middle = expected * np.sqrt(np.maximum(self.level_left / now, 1.0))
        stepped = week - self.stepped_down_at <= _RETURN_WEEKS
        found: Bools = stepped & (self.out["observed_in_window"][:, week] >= middle)
        return found

    def _take_as_certain(self, week: int, anomalous: Bools, strong: Bools) -> None:
        """Confidence is of the whole event: high from the week on that makes it so, until the event is over."""
        self.is_certain = (self.is_certain & anomalous) | strong
        self.out["is_strong"][:, week] = self.is_certain & (self.out["kind"][:, week] > 0)
        for i in np.flatnonzero(strong):
            self.certain[i, min(self.since[i], week) : week + 1] = True
        self.certain[:, week] |= self.is_certain

    def _strong(self, week: int) -> Bools:
        """Weeks of which few are ordinary: of those as far out in the past half year, at most the rate of the rules."""
        found = np.zeros(len(self.seen), dtype=bool)
        span = slice(max(week - 25, 0), week + 1)
        for side in (-1, 1):
            past = self.normal[side][:, span]
            far = np.sort(past[past >= _LEAST_STRONG])
            now = np.nan_to_num(self.normal[side][:, week])
            as_far = np.maximum(len(far) - np.searchsorted(far, now), 1)
            false = np.count_nonzero(~np.isnan(past)) * ndtr(-now) / as_far
            found |= (now >= _LEAST_STRONG) & (false <= self.rules.false_discovery_rate)
        return found

    def _above_floors(self, week: int) -> Bools:
        """A change that matters: in clicks, and as a share; of a series that hardly strays, a smaller share does."""
        expected = self.out["expected_in_window"][:, week]
        change = np.abs(self.out["observed_in_window"][:, week] - expected)
        mean = np.maximum(self.scatter.mean, 0.1)
        strays = np.sqrt(self.scatter.variance(mean)) / mean
        share = np.clip(_FLOOR_OF_SCATTER * strays, _LEAST_SHARE, self.rules.relative_floor)
        found: Bools = (change >= share * expected) & (change >= self.absolute_floor)
        return found

    def _declines(self, week: int, can_be: Bools) -> Ints:
        """Over how many weeks a series was lost slowly, 0 where it was not: told once, with its last eight weeks.

        Against the level of half a year ago, or against the same weeks of last year: what takes a whole year is less
        than half done after half of it.
        """
        rules = self.rules
        lost_over = np.zeros(len(self.seen), dtype=np.int64)
        start = week + 1 - rules.decline_weeks
        if start >= rules.minimum_weeks:
            clicks, exposure, seen = self.after[start]
            level = np.maximum(_level(clicks, exposure), 0.02)
            free = can_be & (seen >= rules.minimum_weeks) & (self.last_event < start) & (self.new_level_at < start)
            doubt = self._doubt(clicks, exposure, rules.decline_weeks)
            lost_over[self._fell_short(week, free, level, doubt)] = rules.decline_weeks
        if week + 1 - _YEAR - _DECLINE_WEEKS >= 0:
            level, doubt = self._of_last_year(week)
            # an event hides the loss for as long as it is among the last weeks; a step is what was lost
            free = can_be & ~np.isnan(level) & (lost_over == 0) & (self.last_event <= week - _DECLINE_WEEKS - 4)
            free &= (self.new_level_at <= week - _YEAR) & (self.declined_at <= week - _YEAR)
            lost_over[self._fell_short(week, free, np.nan_to_num(level), np.nan_to_num(doubt))] = _YEAR
        self.declined_at = np.where(lost_over > 0, week, self.declined_at)
        return lost_over

    def _fell_short(self, week: int, can_be: Bools, level: Floats, doubt: Floats) -> Bools:
        """Series whose last eight weeks lie far below `level` and go on falling: those weeks are what it is about."""
        rules = self.rules

        def of(first: int, last: int) -> tuple[Floats, Floats]:
            x = self.x_known[:, first:last].sum(axis=1)
            return self.counts[:, first:last].sum(axis=1), np.maximum(level * x, 1e-9)

        half = _DECLINE_WEEKS // 2
        recent, mean = of(week + 1 - _DECLINE_WEEKS, week + 1)
        late, late_mean = of(week + 1 - half, week + 1)
        early, early_mean = of(week + 1 - _DECLINE_WEEKS, week + 1 - half)
        variance = _DECLINE_WEEKS * self.scatter.variance(mean / _DECLINE_WEEKS) + doubt * mean**2
        z = (recent - mean) / np.sqrt(variance)
        found: Bools = (
            can_be
            & self.known[:, week]
            & (z <= -self.drop_limit)
            & (recent <= (1 - rules.decline_share) * mean)
            & (mean - recent >= 2 * self.absolute_floor)
            & (late / late_mean < early / early_mean)
        )
        self._keep(week, found, np.full(len(z), _DECLINE_WEEKS), recent, mean, variance, z)
        return found

    def _of_last_year(self, week: int) -> tuple[Floats, Floats]:
        """Level of the same eight weeks a year ago and its relative variance, NaN where too few were known.

        No higher than the usual level was then, so that a peak of those weeks is not what was lost. What the accounts
        of the application lost in that year together is no loss of one of them.
        """
        then = week + 1 - _YEAR
        clicks, exposure, seen = self.after[then]
        usual = np.where(seen >= self.rules.minimum_weeks, _level(clicks, exposure), np.nan)
        level = np.maximum(np.minimum(self._of_eight_weeks(then), usual), 0.02)
        kept = self._of_eight_weeks(week + 1) / level
        for application in range(self.applications):
            of_it = self.series.application == application
            ratios = kept[of_it & ~np.isnan(kept)]
            if len(ratios) >= self.rules.platform_accounts:
                level[of_it] *= min(float(np.median(ratios)), 1.0)
        known = np.maximum(np.nan_to_num(level, nan=1.0), 0.02)
        one_week = self.scatter.variance(known) / known**2
        return level, one_week / _DECLINE_WEEKS + _YEAR * self._drift() ** 2

    def _of_eight_weeks(self, end: int) -> Floats:
        span = slice(end - _DECLINE_WEEKS, end)
        x = self.x_known[:, span].sum(axis=1)
        there = self.known[:, span].sum(axis=1) >= _DECLINE_KNOWN
        found: Floats = np.where(there, self.counts[:, span].sum(axis=1) / np.maximum(x, 1e-9), np.nan)
        return found

    def _take_new_levels(self, week: int) -> None:
        """A level that has stayed new for long enough becomes the usual one."""
        kind = self.out["kind"][:, week]
        shifted = (kind == SHIFT_UP) | (kind == SHIFT_DOWN)
        for i in np.flatnonzero(shifted):
            span = slice(max(self.since[i], week + 1 - self.rules.shift_weeks), week + 1)
            known = self.known[i, span]
            before = self.after[self.since[i]]
            self.level_left[i] = before[0][i] / max(before[1][i], 1e-9)
            self.levels.start(int(i), self.counts[i, span][known].sum(), self.x[i, span][known].sum())
        self.clicks, self.exposure = self.levels.best()
        self.direction = np.where(shifted, 0, self.direction)
        self.new_level_at = np.where(shifted, week, self.new_level_at)
        self.stepped_down_at = np.where(kind == SHIFT_DOWN, week, np.where(shifted, -_YEAR, self.stepped_down_at))


_FLOATS = (
    "expected",
    "expected_before",
    "variance",
    "observed_in_window",
    "expected_in_window",
    "variance_in_window",
    "z",
)


def _filled(series: int, weeks: int, value: float, dtype: type = float) -> NDArray[Any]:
    return np.full((series, weeks), value, dtype, order="F")


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
