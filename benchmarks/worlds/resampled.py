"""Real weekly series, cut into blocks and resampled, with events planted in them.

Where the noise comes from. Two courses of the Open University (students' clicks by kind of activity) and a vendor's
table of feature usage (RavenStack). An account is a list of up to 60 students of one course, or up to 60 customers of
the vendor. An application is a kind of activity, or a bundle of features. A series is the sum over the first members
of the account's list, as many as give about the level wanted or a few times that.

What a residual is. A group's real count of a week, divided by what was expected of the group that week. The expectation
is half the group's own count, smoothed over some weeks, and half its share of the smoothed total of the source. It also
holds the square root of the common factor (total / smoothed total), so half of a deadline's burst is expected.

How 150 weeks come about. Blocks of 3 to 8 real weeks follow each other, in circles through the weeks kept, so that
every real week is equally likely and the residuals have a mean of exactly 1. All applications of an account use the
same weeks. Part of the time all accounts of a source use the same weeks, so unexpected common moves exist. They count
as noise: `mean` does not hold them and `variance` does. The square root of the common factor is the season of an
application, repeated every 52 weeks. Levels are made up; they move slowly.

How counts stay integers. A real count is thinned binomially where the mean wanted is lower than the expectation. It is
repeated and thinned where the mean is higher. `variance` is exact for one week of one series: that of its residuals and
that of the thinning. Drops thin the finished count. Spikes add another count drawn from the same real week, so they
keep its residual.

What keeps ordinary weeks ordinary. Only the inner weeks of a course are used, and nobody who withdrew from it. The
first three weeks and the end of a course are left out. Kinds of activity that hardly occur are left out too. A small
group that is silent for some weeks in the middle of a course stays: reality is like that.

The folder of the real data is named by the environment variable USAGE_PIPELINE_REAL_DATA.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.worlds import CommonEvent, Event, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

VARIABLE = "USAGE_PIPELINE_REAL_DATA"
WEEKS = 150
JUDGED_FROM = 104
YEAR = 52

ACTIVITIES = ("oucontent", "forumng", "homepage", "subpage", "url", "resource")
# how many accounts have the application
ACTIVITY_USED_BY = (0.95, 0.95, 0.95, 0.75, 0.6, 0.45)
COURSE_STARTS = {"2013J": "2013-10-07", "2014J": "2014-10-06"}
COURSE_OUTER = (-2, 36)  # weeks of a course to smooth over
COURSE_INNER = (3, 34)  # weeks of a course to take residuals from
COURSE_ACCOUNTS = 180
COURSE_SMOOTHING = 4.0

BUNDLES = 3
BUNDLE_USED_BY = 0.85
VENDOR_START = "2023-01-02"
VENDOR_WEEKS = 104
VENDOR_ACCOUNTS = 118
VENDOR_SMOOTHING = 8.0

LARGEST_GROUP = 60
LOWEST_LEVEL, HIGHEST_LEVEL = 0.5, 2000.0
# a series' level is at most so many times what its real group did
MOST_REPEATED = 3.0
# and a group does at most so many times its series' level, if the group has more than one member
MOST_THINNED = 8.0
SHORTEST_BLOCK, LONGEST_BLOCK = 3, 8
SHARED_BLOCKS = 0.3

REGIONS = 4
HOLIDAYS_A_YEAR = 10
BEGIN_LATE, END_EARLY = 0.1, 0.08
RAMP = (0.2, 0.4, 0.6, 0.8)
LEFT_OUT_AFTER_BEGIN, LEFT_OUT_BEFORE_END = 6, 2
QUIET_WEEKS = 8
DECLINE_TO = 0.3

# kind, weeks, factors, share of the events
PLANTED: tuple[tuple[str, int, tuple[float, ...], float], ...] = (
    ("spike", 1, (1.5, 2.0, 3.0, 5.0), 0.18),
    ("drop", 1, (0.7, 0.4, 0.0), 0.16),
    ("drop", 4, (0.7, 0.4, 0.0), 0.48),
    ("shift", 8, (0.5, 0.6, 1.6, 2.0), 0.10),
    ("decline", 20, (DECLINE_TO,), 0.08),
)


@dataclass(frozen=True)
class _Source:
    """Real weekly counts of the members of one course, or of the vendor's customers."""

    counts: Floats  # (members, applications, outer weeks)
    kernel: Floats  # (inner weeks, outer weeks), smooths
    inner: slice
    calendar: int  # week of the year of the first inner week
    applications: tuple[int, ...]  # numbers in the world
    used_by: tuple[float, ...]
    accounts: int

    @property
    def weeks(self) -> int:
        """Weeks that residuals are taken from."""
        return int(self.inner.stop) - int(self.inner.start)

    def smoothed_total(self) -> Floats:
        """(applications, inner weeks)."""
        return np.asarray(self.counts.sum(axis=0) @ self.kernel.T)

    def common_factor(self) -> Floats:
        """Total of all members against its smoothed self, (applications, inner weeks)."""
        total = self.counts.sum(axis=0)[:, self.inner]
        return np.asarray(total / self.smoothed_total())

    def reach(self) -> Floats:
        """Highest level that the largest group can stand for, by application."""
        mean: Floats = self.counts[:, :, self.inner].mean(axis=(0, 2))
        return MOST_REPEATED * LARGEST_GROUP * mean


@dataclass(frozen=True)
class _Pool:
    """One group's real counts and what was expected of it, both (inner weeks,)."""

    counts: Floats
    expected: Floats

    def variance_at(self, mean: Floats) -> Floats:
        """Variance of a count drawn from this pool, week by week of the mean wanted."""
        ratio = self.counts / self.expected
        rest = np.mod(mean[:, None] / self.expected[None, :], 1.0)
        thinning: Floats = (self.counts[None, :] * rest * (1 - rest)).mean(axis=1)
        return np.asarray(mean**2 * ratio.var() + thinning)


@dataclass(frozen=True)
class _Layout:
    """The series of a world, each (n,)."""

    source: Ints
    account: Ints
    column: Ints  # of the application in its source
    application: Ints
    level: Floats


@dataclass(frozen=True)
class _Life:
    """First week of each series and the first week after its last, each (n,)."""

    begin: Ints
    end: Ints

    def alive(self) -> Bools:
        """(n, T)."""
        week = np.arange(WEEKS)
        return np.asarray((week >= self.begin[:, None]) & (week < self.end[:, None]))

    def ramp(self) -> Floats:
        """Factors of the first weeks of series that begin late, (n, T)."""
        found = np.ones((len(self.begin), WEEKS))
        for series in np.flatnonzero(self.begin > 0):
            stretch = found[series, self.begin[series] : self.begin[series] + len(RAMP)]
            stretch[:] = RAMP[: len(stretch)]
        return found

    def left_out(self) -> Bools:
        """Weeks just after a late begin and just before an end, (n, T)."""
        week = np.arange(WEEKS)
        begin, end = self.begin[:, None], self.end[:, None]
        fresh = (begin > 0) & (week >= begin) & (week < begin + LEFT_OUT_AFTER_BEGIN)
        closing = (end < WEEKS) & (week < end) & (week >= end - LEFT_OUT_BEFORE_END)
        return np.asarray(fresh | closing)


def make(seed: int, events_a_week: float = 0.008) -> World:
    """A world of about 2,000 resampled series over 150 weeks."""
    sources = _sources(_folder())
    rng = np.random.default_rng([seed, 20131007])
    layout = _layout(sources, rng)
    life = _life(layout, rng)
    missing = _missing_weeks(rng)
    common = _common_events(layout, missing, rng)
    working_days = _working_days(layout, rng)
    mean = _mean(sources, layout, working_days, rng) * life.ramp() * _common_factors(layout, common)
    real, expected, variance = _resample(sources, layout, mean, rng)
    events = _events(life, missing, events_a_week, rng)
    counts = _plant(_draw(real, expected, mean, rng), real, expected, mean, _own_factors(len(mean), events), rng)
    counts[~life.alive()] = np.nan
    counts[:, missing] = np.nan
    return World(
        name="resampled",
        counts=counts,
        mean=mean,
        variance=variance,
        account=layout.account,
        application=layout.application,
        working_days=working_days,
        judged_from=JUDGED_FROM,
        events=events,
        common=common,
        left_out=life.left_out(),
    )


# --- the real data


def _folder() -> str:
    """Folder of the real data. Raises if the environment does not name it or it is not there."""
    named = os.environ.get(VARIABLE, "")
    if not named:
        raise RuntimeError(f"{VARIABLE} is not set: it must name the folder of the real data (oulad, ravenstack)")
    for part in ("oulad", "ravenstack"):
        if not (Path(named) / part).is_dir():
            raise FileNotFoundError(f"{VARIABLE} names {named}, which has no folder {part}")
    return named


@cache
def _sources(folder: str) -> tuple[_Source, ...]:
    """Both courses and the vendor. Read once in a process."""
    courses = [_course(Path(folder) / "oulad", name, start) for name, start in COURSE_STARTS.items()]
    return (*courses, _vendor(Path(folder) / "ravenstack"))


def _course(folder: Path, presentation: str, start: str) -> _Source:
    """Clicks of the students of one presentation who did not withdraw, by week of the course."""
    query = """
        with stayed as (
            select enrolment from read_csv($registrations, all_varchar = true)
            where withdrew_on is null or withdrew_on = ''
        )
        select enrolment as member, activity_type as kind,
               cast(floor((day - cast($start as date)) / 7.0) as integer) as week, sum(sum_click) as clicks
        from read_parquet($clicks, hive_partitioning = false) semi join stayed using (enrolment)
        where contains(enrolment, $presentation)
        group by all
    """
    found = _rows(
        query,
        registrations=str(folder / "registrations.csv"),
        clicks=str(folder / "clicks" / "*" / "*" / "*.parquet"),
        start=start,
        presentation=f"-{presentation}-",
    )
    first, last = COURSE_OUTER
    inner = slice(COURSE_INNER[0] - first, COURSE_INNER[1] - first)
    return _Source(
        counts=_cube(found, ACTIVITIES, first, last),
        kernel=_kernel(last - first, inner, COURSE_SMOOTHING),
        inner=inner,
        calendar=COURSE_INNER[0],
        applications=tuple(range(len(ACTIVITIES))),
        used_by=ACTIVITY_USED_BY,
        accounts=COURSE_ACCOUNTS,
    )


def _vendor(folder: Path) -> _Source:
    """Usage of bundles of features by the vendor's customers. A row that is there twice counts once."""
    query = """
        with once as (select distinct on (usage_id) * from read_csv($usage, all_varchar = true) order by all)
        select account_id as member,
               cast(cast(split_part(feature_name, '_', 2) as integer) % $bundles as varchar) as kind,
               cast(floor((cast(usage_date as date) - cast($start as date)) / 7.0) as integer) as week,
               sum(cast(usage_count as integer)) as clicks
        from once join read_csv($subscriptions, all_varchar = true) using (subscription_id)
        group by all
    """
    found = _rows(
        query,
        usage=str(folder / "ravenstack_feature_usage.csv"),
        subscriptions=str(folder / "ravenstack_subscriptions.csv"),
        start=VENDOR_START,
        bundles=BUNDLES,
    )
    inner = slice(0, VENDOR_WEEKS)
    return _Source(
        counts=_cube(found, [str(bundle) for bundle in range(BUNDLES)], 0, VENDOR_WEEKS),
        kernel=_kernel(VENDOR_WEEKS, inner, VENDOR_SMOOTHING),
        inner=inner,
        calendar=0,
        applications=tuple(range(len(ACTIVITIES), len(ACTIVITIES) + BUNDLES)),
        used_by=(BUNDLE_USED_BY,) * BUNDLES,
        accounts=VENDOR_ACCOUNTS,
    )


def _rows(query: str, **parameters: str | int) -> list[tuple[str, str, int, int]]:
    """Member, kind, week and clicks, in a fixed order."""
    with duckdb.connect(config={"threads": 1}) as connection:
        return connection.execute(f"{query} order by all", parameters).fetchall()


def _cube(rows: list[tuple[str, str, int, int]], kinds: Sequence[str], first: int, last: int) -> Floats:
    """Counts by member, kind and week, from week `first` to before `last`."""
    members = {member: at for at, member in enumerate(sorted({row[0] for row in rows}))}
    places = {kind: at for at, kind in enumerate(kinds)}
    cube = np.zeros((len(members), len(kinds), last - first))
    for member, kind, week, clicks in rows:
        if kind in places and first <= week < last:
            cube[members[member], places[kind], week - first] += clicks
    return cube


def _kernel(weeks: int, inner: slice, width: float) -> Floats:
    """Weights of a Gaussian mean around each inner week; they sum to 1."""
    week = np.arange(weeks)
    weights = np.exp(-0.5 * ((week[inner, None] - week[None, :]) / width) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


# --- series, levels and lives


def _layout(sources: tuple[_Source, ...], rng: Generator) -> _Layout:
    """Which account has which application, and at what level."""
    rows: list[tuple[int, int, int, int]] = []
    account = 0
    for number, source in enumerate(sources):
        for _ in range(source.accounts):
            used = np.flatnonzero(rng.random(len(source.used_by)) < source.used_by)
            rows += [(number, account, int(column), source.applications[column]) for column in used]
            account += int(len(used) > 0)
    table = np.array(rows, dtype=np.int64)
    return _Layout(table[:, 0], table[:, 1], table[:, 2], table[:, 3], _levels(sources, table, account, rng))


def _levels(sources: tuple[_Source, ...], table: Ints, accounts: int, rng: Generator) -> Floats:
    """Log-uniform within an application, up to what its groups can stand for. A large account is large in all."""
    size = rng.normal(size=accounts)[table[:, 1]] + rng.normal(size=len(table))
    reach = np.array([sources[number].reach()[column] for number, _, column, _ in table])
    highest = np.minimum(reach, HIGHEST_LEVEL)
    level = np.empty(len(table))
    for application in np.unique(table[:, 3]):
        chosen = np.flatnonzero(table[:, 3] == application)
        place = (np.argsort(np.argsort(size[chosen])) + rng.random(len(chosen))) / len(chosen)
        level[chosen] = LOWEST_LEVEL * (highest[chosen] / LOWEST_LEVEL) ** place
    return level


def _life(layout: _Layout, rng: Generator) -> _Life:
    """Some accounts and some series begin late or end early."""
    n = len(layout.level)
    begin, end = np.zeros(n, dtype=np.int64), np.full(n, WEEKS, dtype=np.int64)
    accounts = np.unique(layout.account)
    for groups, labels in ((accounts, layout.account), (np.arange(n), np.arange(n))):
        late = rng.random(len(groups)) < BEGIN_LATE / 2
        early = rng.random(len(groups)) < END_EARLY / 2
        begins = np.where(late, rng.integers(8, 125, len(groups)), 0)
        ends = np.where(early, rng.integers(60, WEEKS - 1, len(groups)), WEEKS)
        begin = np.maximum(begin, begins[labels])
        end = np.minimum(end, ends[labels])
    end = np.where(end < begin + 20, WEEKS, end)
    return _Life(begin, end)


def _missing_weeks(rng: Generator) -> Ints:
    """Two or three weeks that never arrived, one of them in the weeks judged."""
    before = rng.choice(np.arange(10, JUDGED_FROM), size=rng.integers(1, 3), replace=False)
    return np.sort(np.append(before, rng.integers(JUDGED_FROM + 4, WEEKS - 4))).astype(np.int64)


# --- the mean


def _mean(sources: tuple[_Source, ...], layout: _Layout, working_days: Floats, rng: Generator) -> Floats:
    """Level, season and holidays, (n, T)."""
    power = rng.uniform(0.7, 1.2, (len(layout.level), 1))
    season = _seasons(sources, int(rng.integers(YEAR)))[layout.application]
    return np.asarray(layout.level[:, None] * _slow(layout, rng) * season * working_days**power)


def _slow(layout: _Layout, rng: Generator) -> Floats:
    """Slow wandering of the levels, and a trend that the series of an account share in part, (n, T)."""
    n, accounts = len(layout.level), int(layout.account.max()) + 1
    years = (np.arange(WEEKS) - WEEKS / 2) / YEAR
    trend = rng.normal(0, 0.07, accounts)[layout.account] + rng.normal(0, 0.05, n)
    knots = np.linspace(0, WEEKS - 1, 7)
    walk = np.cumsum(rng.normal(0, 0.06, (n, len(knots))), axis=1)
    walk -= walk.mean(axis=1, keepdims=True)
    wander = np.array([np.interp(np.arange(WEEKS), knots, row) for row in walk])
    return np.asarray(np.exp(wander + trend[:, None] * years))


def _seasons(sources: tuple[_Source, ...], start: int) -> Floats:
    """Square root of the common factor by application and week, the mean over its sources and years."""
    applications = max(max(source.applications) for source in sources) + 1
    total, times = np.zeros((applications, YEAR)), np.zeros((applications, YEAR))
    for source in sources:
        logs = np.log(source.common_factor()) / 2
        at = (source.calendar + np.arange(source.weeks)) % YEAR
        for column, application in enumerate(source.applications):
            np.add.at(total[application], at, logs[column])
            np.add.at(times[application], at, 1)
    season = np.exp(total / np.maximum(times, 1))
    season /= season.mean(axis=1, keepdims=True)
    return np.asarray(season[:, (start + np.arange(WEEKS)) % YEAR])


def _working_days(layout: _Layout, rng: Generator) -> Floats:
    """Working days of each week as a share of five, by the region of the account, (n, T)."""
    regions = np.array([_region(rng) for _ in range(REGIONS)])
    home = rng.integers(REGIONS, size=int(layout.account.max()) + 1)
    return np.asarray(regions[home[layout.account]])


def _region(rng: Generator) -> Floats:
    """One region's working days: ten holidays a year, two of them in one week, and three that move by a week."""
    fixed = rng.choice(YEAR, size=HOLIDAYS_A_YEAR - 1, replace=False)
    days = np.full(WEEKS, 5.0)
    for year in range(-(-WEEKS // YEAR)):
        moved = np.append(fixed, fixed[0])
        moved[-4:-1] += rng.integers(-1, 2, 3)
        weeks = year * YEAR + moved
        np.subtract.at(days, weeks[(weeks >= 0) & (weeks < WEEKS)], 1.0)
    return days / 5


def _common_events(layout: _Layout, missing: Ints, rng: Generator) -> list[CommonEvent]:
    """Two or three events in the weeks judged: one for all, the others for the accounts of one application."""
    number = int(rng.integers(2, 4))
    room = (WEEKS - JUDGED_FROM) // number
    applications = [-1, *rng.choice(np.unique(layout.application), number - 1, replace=False).tolist()]
    found = []
    for place, application in enumerate(rng.permutation(applications)):
        weeks = int(rng.integers(1, 5))
        free = JUDGED_FROM + place * room + np.arange(2, room - 5)
        free = free[[not np.isin(np.arange(week, week + weeks), missing).any() for week in free]]
        factor = rng.uniform(0.4, 0.7) if rng.random() < 0.5 else rng.uniform(1.4, 2.0)
        found.append(CommonEvent(int(application), int(rng.choice(free)), weeks, round(float(factor), 2)))
    return found


def _common_factors(layout: _Layout, common: list[CommonEvent]) -> Floats:
    """(n, T)."""
    found = np.ones((len(layout.level), WEEKS))
    for event in common:
        concerned = (layout.application == event.application) | (event.application == -1)
        found[concerned, event.week : event.week + event.weeks] *= event.factor
    return found


# --- resampling


def _resample(
    sources: tuple[_Source, ...], layout: _Layout, mean: Floats, rng: Generator
) -> tuple[Floats, Floats, Floats]:
    """Real counts and what was expected in the real weeks chosen, and the variance around `mean`, each (n, T)."""
    real, expected, variance = np.empty(mean.shape), np.empty(mean.shape), np.empty(mean.shape)
    shared = [(_path(source.weeks, rng), _shared_weeks(rng)) for source in sources]
    for account in np.unique(layout.account):
        rows = np.flatnonzero(layout.account == account)
        number = int(layout.source[rows[0]])
        source, (together, when) = sources[number], shared[number]
        path = np.where(when, together, _path(source.weeks, rng))
        members = rng.permutation(len(source.counts))[:LARGEST_GROUP]
        for row in rows:
            pool = _pool(source, members, int(layout.column[row]), float(layout.level[row]), rng)
            real[row], expected[row] = pool.counts[path], pool.expected[path]
            variance[row] = pool.variance_at(mean[row])
    return real, expected, variance


def _pool(source: _Source, members: Ints, column: int, level: float, rng: Generator) -> _Pool:
    """As many of the account's members, from the first on, as give the level wanted or some times that."""
    counts = source.counts[members, column]
    reached = counts[:, source.inner].mean(axis=1).cumsum()
    wanted = level * MOST_THINNED ** rng.random()
    group = min(int(np.searchsorted(reached, wanted)) + 1, len(members))
    return _residuals(source, column, counts[:group].sum(axis=0))


def _residuals(source: _Source, column: int, counts: Floats) -> _Pool:
    """A group's counts in the inner weeks and their expectation, so that the mean of their ratio is 1."""
    inner, total = counts[source.inner], source.smoothed_total()[column]
    share = total * inner.sum() / total.sum()
    expected = (source.kernel @ counts + share) / 2 * np.sqrt(source.common_factor()[column])
    return _Pool(inner, expected * (inner / expected).mean())


def _path(weeks: int, rng: Generator) -> Ints:
    """Real week of each week: blocks that start anywhere and go on at the first week after the last."""
    found: list[NDArray[np.int64]] = []
    while sum(map(len, found)) < WEEKS:
        length = rng.integers(SHORTEST_BLOCK, LONGEST_BLOCK + 1)
        found.append((rng.integers(weeks) + np.arange(length)) % weeks)
    return np.concatenate(found)[:WEEKS]


def _shared_weeks(rng: Generator) -> Bools:
    """Weeks in which all accounts of a source use the same real weeks."""
    found: list[bool] = []
    while len(found) < WEEKS:
        length = int(rng.integers(SHORTEST_BLOCK, LONGEST_BLOCK + 1))
        found += [bool(rng.random() < SHARED_BLOCKS)] * length
    return np.array(found[:WEEKS])


def _draw(real: Floats, expected: Floats, mean: Floats, rng: Generator) -> Floats:
    """Counts with the mean wanted: the real ones repeated, and one copy thinned."""
    whole, rest = np.divmod(mean / expected, 1.0)
    return np.asarray(whole * real + rng.binomial(real.astype(np.int64), rest))


# --- events


def _events(life: _Life, missing: Ints, events_a_week: float, rng: Generator) -> list[Event]:
    """Events of series of their own, from the first week judged on."""
    found: list[Event] = []
    for series, (begin, end) in enumerate(zip(life.begin.tolist(), life.end.tolist(), strict=True)):
        first = max(JUDGED_FROM, begin + LEFT_OUT_AFTER_BEGIN if begin else 0)
        last = end - LEFT_OUT_BEFORE_END if end < WEEKS else WEEKS
        found += _events_of_one(series, first, last, missing, events_a_week, rng)
    return found


def _events_of_one(
    series: int, first: int, last: int, missing: Ints, events_a_week: float, rng: Generator
) -> list[Event]:
    """Events from week `first` to before `last`, with quiet weeks between. Nothing follows what stays for good."""
    found: list[Event] = []
    if events_a_week <= 0:
        return found
    week = first + int(rng.geometric(events_a_week)) - 1
    while week < last:
        event = _one_event(series, week, last, rng)
        following = week + 1
        # what would begin in a week that never arrived does not happen
        if week not in missing:
            found.append(event)
            if event.kind in ("shift", "decline"):
                break
            following = week + event.weeks + QUIET_WEEKS
        week = following + int(rng.geometric(events_a_week)) - 1
    return found


def _one_event(series: int, week: int, last: int, rng: Generator) -> Event:
    """One of the kinds that are over before `last`."""
    fitting = [kind for kind in PLANTED if week + kind[1] <= last]
    shares = np.array([kind[3] for kind in fitting])
    kind, weeks, factors, _ = fitting[int(rng.choice(len(fitting), p=shares / shares.sum()))]
    return Event(series, week, weeks, kind, float(rng.choice(factors)))


def _own_factors(n: int, events: list[Event]) -> Floats:
    """(n, T)."""
    found = np.ones((n, WEEKS))
    for event in events:
        row = found[event.series]
        if event.kind == "decline":
            row[event.week : event.week + event.weeks] = np.linspace(1, event.factor, event.weeks + 1)[1:]
            row[event.week + event.weeks :] = event.factor
        else:
            row[event.week : WEEKS if event.kind == "shift" else event.week + event.weeks] = event.factor
    return found


def _plant(counts: Floats, real: Floats, expected: Floats, mean: Floats, factor: Floats, rng: Generator) -> Floats:
    """Thins where the factor is below 1. Adds counts from the same real week where it is above."""
    thinned = rng.binomial(counts.astype(np.int64), np.minimum(factor, 1.0))
    return np.asarray(thinned + _draw(real, expected, mean * np.maximum(factor - 1, 0), rng))
