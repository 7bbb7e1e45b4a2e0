"""A statistician's world: negative binomial counts around log-linear means with random effects.

The log mean of a series adds an account effect, an application effect, their interaction, a small random walk, the
season of the application as strong as the account shows it, an own season of some accounts, and working days.
The variance is phi * mean + (cv * mean)^2: a gamma multiplier of mean 1, then a negative binomial count.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product

import numpy as np
from numpy.typing import NDArray

from benchmarks.worlds import CommonEvent, Event, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ACCOUNTS = 400
APPLICATIONS = 12
WEEKS = 150
JUDGED_FROM = 104
RAMP = np.array([0.2, 0.4, 0.6, 0.8])
FADE = np.array([0.8, 0.5])
WEEKS_LEFT_OUT_AT_START = 6
QUIET_WEEKS = 8
FOR_GOOD = ("shift", "decline")
# (kind, weeks, factors), and how many cards of twenty it has
CARDS: list[tuple[tuple[str, int, tuple[float, ...]], int]] = [
    (("spike", 1, (1.5, 2.0, 3.0, 5.0)), 4),
    (("drop", 1, (0.7, 0.4, 0.0)), 3),
    (("drop", 4, (0.7, 0.4, 0.0)), 9),
    (("shift", 8, (0.5, 0.6, 1.6, 2.0)), 2),
    (("decline", 20, (0.3,)), 2),
]


@dataclass(frozen=True)
class Region:
    """Public holidays: (month, day), days after Easter Sunday, and (month, weekday, nth or -1, days after)."""

    fixed: tuple[tuple[int, int], ...]
    easter: tuple[int, ...] = ()
    weekday: tuple[tuple[int, int, int, int], ...] = ()


EASTERN_DAYS = tuple(
    divmod(day, 100) for day in (101, 102, 103, 211, 223, 429, 503, 504, 505, 811, 813, 814, 815, 1103, 1123, 1231)
)
REGIONS = (
    Region(((1, 1), (5, 1), (10, 3), (12, 25), (12, 26)), (-2, 1, 39, 50)),
    Region(((1, 1), (1, 6), (4, 25), (5, 1), (6, 2), (8, 15), (11, 1), (12, 8), (12, 25), (12, 26)), (1,)),
    Region(((1, 1), (1, 6), (5, 1), (12, 6), (12, 24), (12, 25), (12, 26)), (-2, 1, 39), ((6, 4, 3, 0),)),
    Region(
        ((1, 1), (6, 19), (7, 4), (11, 11), (12, 25)),
        (),
        ((1, 0, 3, 0), (2, 0, 3, 0), (5, 0, -1, 0), (9, 0, 1, 0), (10, 0, 2, 0), (11, 3, 4, 0), (11, 3, 4, 1)),
    ),
    Region(
        EASTERN_DAYS,
        (),
        ((1, 0, 2, 0), (7, 0, 3, 0), (9, 0, 3, 0), (10, 0, 2, 0)),
    ),
)


def easter_sunday(year: int) -> date:
    """Date of Easter Sunday in the Gregorian calendar."""
    century, rest = divmod(year, 100)
    moon = (19 * (year % 19) + century - century // 4 - (century - (century + 8) // 25 + 1) // 3 + 15) % 30
    sunday = (32 + 2 * (century % 4) + 2 * (rest // 4) - moon - rest % 4) % 7
    late = (year % 19 + 11 * moon + 22 * sunday) // 451
    month, day = divmod(moon + sunday - 7 * late + 114, 31)
    return date(year, month, day + 1)


def nth_weekday(year: int, month: int, weekday: int, nth: int) -> date:
    """The nth weekday (Monday is 0) of a month, or the last one if nth is -1."""
    if nth < 0:
        first_of_next = date(year + month // 12, month % 12 + 1, 1)
        return first_of_next - timedelta(days=(first_of_next.weekday() - weekday - 1) % 7 + 1)
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def holidays(region: Region, years: range) -> list[date]:
    """All public holidays of a region."""
    found = [date(year, month, day) for year, (month, day) in product(years, region.fixed)]
    found += [easter_sunday(year) + timedelta(days=after) for year, after in product(years, region.easter)]
    for year, (month, weekday, nth, after) in product(years, region.weekday):
        found.append(nth_weekday(year, month, weekday, nth) + timedelta(days=after))
    return found


def working_days(monday: date, weeks: int) -> Floats:
    """Working days of each region and week as a share of five, (regions, weeks)."""
    days = np.datetime64(monday, "D") + np.arange(7 * weeks)
    years = range(monday.year, monday.year + weeks // 52 + 2)
    open_days = [
        np.is_busday(days, holidays=np.array(holidays(region, years), dtype="datetime64[D]")) for region in REGIONS
    ]
    found: Floats = np.array(open_days, dtype=np.float64).reshape(len(REGIONS), weeks, 7).sum(axis=2) / 5
    return found


def first_monday(rng: np.random.Generator) -> date:
    """A Monday of two years to start with."""
    return date(2020, 1, 6) + timedelta(weeks=int(rng.integers(104)))


def place_in_year(monday: date, weeks: int) -> Floats:
    """Where the Thursday of each week lies in its year, from 0 to 1."""
    thursdays = np.datetime64(monday, "D") + 3 + 7 * np.arange(weeks)
    since_new_year: Floats = (thursdays - thursdays.astype("datetime64[Y]")).astype(np.float64)
    return since_new_year / 365.25


def variance_of(mean: Floats, phi: Floats | float, cv: Floats | float) -> Floats:
    """Variance of a count drawn by `draw_counts`."""
    return phi * mean + (cv * mean) ** 2


def gamma_multiplier(rng: np.random.Generator, cv: Floats, rho: Floats, weeks: int) -> Floats:
    """Gamma multipliers of mean 1, exactly of the cv given, and with autocorrelation rho ** lag, (n, weeks)."""
    size = 1.0 / cv**2
    found = rng.gamma(size[:, None], size=(len(cv), weeks))
    tied = np.flatnonzero(rho > 0)
    size_tied, rho_tied = size[tied], rho[tied]
    for week in range(1, weeks):
        kept = rng.beta(size_tied * rho_tied, size_tied * (1 - rho_tied))
        found[tied, week] = kept * found[tied, week - 1] + rng.gamma(size_tied * (1 - rho_tied))
    return found / size[:, None]


def draw_counts(
    rng: np.random.Generator, mean: Floats, phi: Floats | float, cv: Floats | float, rho: Floats | float = 0.0
) -> Floats:
    """Counts of variance phi * mean + (cv * mean)^2. phi, cv and rho are one number or one per series."""
    n, weeks = mean.shape
    extra, cv_each, rho_each = (np.broadcast_to(np.asarray(v, dtype=np.float64), n) for v in (phi, cv, rho))
    mean_now = mean * gamma_multiplier(rng, cv_each, rho_each, weeks)
    scale = np.maximum(extra - 1.0, 1e-9)[:, None]
    return rng.poisson(rng.gamma(mean_now / scale) * scale).astype(np.float64)


def event_factor(shape: tuple[int, int], events: list[Event]) -> Floats:
    """What the events multiply the mean by, (n, weeks). A decline is geometric; it and a shift stay."""
    found = np.ones(shape)
    for event in events:
        path = np.full(shape[1] - event.week, event.factor)
        if event.kind == "decline":
            path[: event.weeks] = event.factor ** (np.arange(1, event.weeks + 1) / event.weeks)
        elif event.kind != "shift":
            path = path[: event.weeks]
        found[event.series, event.week : event.week + len(path)] *= path
    return found


def common_factor(application: Ints, weeks: int, common: list[CommonEvent]) -> Floats:
    """What the common events multiply the mean by, (n, weeks)."""
    found = np.ones((len(application), weeks))
    for move in common:
        hit = (application == move.application) | (move.application < 0)
        found[hit, move.week : move.week + move.weeks] *= move.factor
    return found


def _subscriptions(rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Account and application of 2,000 to 2,400 series. Some applications are more popular than others."""
    n = int(rng.integers(2000, 2401))
    liking = rng.normal(0, 0.5, (ACCOUNTS, 1)) + rng.normal(0, 0.4, APPLICATIONS)
    chosen = np.sort(np.argsort(-(liking + rng.gumbel(size=liking.shape)).ravel())[:n])
    return chosen // APPLICATIONS, chosen % APPLICATIONS


def _levels(rng: np.random.Generator, account: Ints, application: Ints) -> Floats:
    """Log level of each series, from log 0.5 to log 2000."""
    of_account = rng.normal(0, 1.2, ACCOUNTS)
    of_application = rng.permutation(np.linspace(-1.3, 1.3, APPLICATIONS))
    level: Floats = 3.4 + of_account[account] + of_application[application] + rng.normal(0, 1.0, len(account))
    return np.clip(level, float(np.log(0.5)), float(np.log(2000.0)))


def _bump(place: Floats, center: Floats | float, width: Floats | float) -> Floats:
    """A bell of height 1 around a place in the year."""
    away = np.abs(place - center)
    return np.asarray(np.exp(-0.5 * (np.minimum(away, 1 - away) / width) ** 2))


def _application_seasons(rng: np.random.Generator, place: Floats) -> Floats:
    """Log season of each application: two harmonics, a summer dip, a dip at the end of the year."""
    found = np.zeros((APPLICATIONS, len(place)))
    column = (APPLICATIONS, 1)
    for order, size in ((1, 0.08), (2, 0.05)):
        angle = 2 * np.pi * order * place
        found += rng.normal(0, size, column) * np.cos(angle) + rng.normal(0, size, column) * np.sin(angle)
    found -= rng.uniform(0.1, 0.6, column) * _bump(place, rng.uniform(0.54, 0.62, column), 0.045)
    found -= rng.uniform(0.1, 0.5, column) * _bump(place, 0.99, 0.014)
    return found


def _own_seasons(rng: np.random.Generator, place: Floats) -> Floats:
    """Log season of each account. A tenth has one: schools with near-empty summers, tax offices with a peak."""
    found = np.zeros((ACCOUNTS, len(place)))
    chosen = rng.permutation(ACCOUNTS)[: ACCOUNTS // 10]
    schools, offices = np.split(chosen, [len(chosen) * 6 // 10])
    start, length = rng.uniform(0.48, 0.53, (len(schools), 1)), rng.uniform(6, 9, (len(schools), 1)) / 52
    inside = (place >= start) & (place < start + length)
    found[schools] = np.log(rng.uniform(0.04, 0.15, (len(schools), 1))) * inside
    center = rng.uniform(0.2, 0.3, (len(offices), 1))
    found[offices] = np.log(rng.uniform(2, 4, (len(offices), 1))) * _bump(place, center, 0.04)
    return found


def _platform_moves(rng: np.random.Generator, missing: Ints) -> list[CommonEvent]:
    """Two to four moves of many accounts: one platform-wide outage, and launches of applications."""
    number = int(rng.integers(2, 5))
    part = (WEEKS - JUDGED_FROM) // number
    applications = rng.choice(APPLICATIONS, number, replace=False)
    applications[rng.integers(number)] = -1
    found = []
    for index, application in enumerate(applications):
        starts = JUDGED_FROM + index * part + np.arange(part - 5)
        week = int(rng.choice(np.setdiff1d(starts, missing)))
        down = application < 0 or rng.random() < 0.4
        factor = rng.uniform(0.4, 0.7) if down else rng.uniform(1.4, 2.0)
        found.append(CommonEvent(int(application), week, int(rng.integers(1, 5)), float(factor)))
    return found


def _lives(rng: np.random.Generator, n: int) -> tuple[Ints, Ints]:
    """First week and week after the last one. 15 % of the series begin later, 10 % more end."""
    start, end = np.zeros(n, dtype=np.int64), np.full(n, WEEKS)
    late, ending, _ = np.split(rng.permutation(n), [round(0.15 * n), round(0.25 * n)])
    start[late] = rng.integers(8, WEEKS - 20, len(late))
    end[ending] = rng.integers(60, WEEKS - 2, len(ending))
    return start, end


def _life_factor(start: Ints, end: Ints) -> Floats:
    """Onboarding over four weeks and fading over the last two."""
    week = np.arange(WEEKS)
    age, left = week - start[:, None], end[:, None] - week
    found = np.ones(age.shape)
    for index, share in enumerate(RAMP):
        found[(age == index) & (start[:, None] > 0)] = share
    for index, share in enumerate(FADE[::-1]):
        found[(left == index + 1) & (end[:, None] < WEEKS)] = share
    return found


def _shuffled(rng: np.random.Generator, number: int) -> list[tuple[str, int, tuple[float, ...]]]:
    """Cards for a number of events, each twenty shuffled by themselves."""
    cards = [card for card, copies in CARDS for _ in range(copies)]
    return [cards[i] for _ in range(number // len(cards) + 1) for i in rng.permutation(len(cards))]


def _events(rng: np.random.Generator, may_start: Bools, end: Ints, probability: float) -> list[Event]:
    """Events of single series, with quiet weeks between them, and none after one for good."""
    candidates = np.argwhere(may_start & (rng.random(may_start.shape) < probability))
    cards = iter(_shuffled(rng, len(candidates)))
    free_from = np.zeros(len(end), dtype=np.int64)
    found = []
    for series, week in candidates.tolist():
        if week < free_from[series]:
            continue
        kind, weeks, factors = next(cards)
        if week + weeks > end[series]:
            continue
        found.append(Event(series, week, weeks, kind, float(rng.choice(factors))))
        free_from[series] = WEEKS if kind in FOR_GOOD else week + weeks + QUIET_WEEKS
    return found


def _mean(rng: np.random.Generator, account: Ints, application: Ints, days: Floats, place: Floats) -> Floats:
    """Means without platform moves, lives and events."""
    n = len(account)
    walk = np.cumsum(rng.normal(0, 0.01, (n, WEEKS)), axis=1)
    amplitude = rng.uniform(0.5, 1.5, ACCOUNTS)[account, None]
    season = amplitude * _application_seasons(rng, place)[application] + _own_seasons(rng, place)[account]
    work = rng.uniform(0.7, 1.2, (n, 1)) * np.log(days)
    return np.exp(_levels(rng, account, application)[:, None] + walk + season + work)


def make(seed: int, events_a_week: float = 0.008) -> World:
    """One world. `events_a_week` is the probability of an event of its own for each series and week judged."""
    rng = np.random.default_rng([seed, 2718])
    monday = first_monday(rng)
    account, application = _subscriptions(rng)
    n, week = len(account), np.arange(WEEKS)
    days = working_days(monday, WEEKS)[rng.integers(len(REGIONS), size=ACCOUNTS)[account]]
    missing = rng.choice(np.arange(5, WEEKS - 2), int(rng.integers(2, 4)), replace=False)
    common = _platform_moves(rng, missing)
    start, end = _lives(rng, n)
    mean = _mean(rng, account, application, days, place_in_year(monday, WEEKS))
    mean *= common_factor(application, WEEKS, common) * _life_factor(start, end)
    phi, cv = rng.uniform(1, 4, n), np.clip(0.22 * np.exp(rng.normal(0, 0.5, n)), 0.08, 0.9)
    rho = np.where(rng.random(n) < 1 / 3, rng.uniform(0.3, 0.5, n), 0.0)

    alive = (week >= start[:, None]) & (week < end[:, None])
    settled_from = np.where(start > 0, start + WEEKS_LEFT_OUT_AT_START, 0)
    settled_to = np.where(end < WEEKS, end - len(FADE), WEEKS)
    settled = (week >= settled_from[:, None]) & (week < settled_to[:, None])
    may_start = settled & (week >= JUDGED_FROM) & ~np.isin(week, missing)
    events = _events(rng, may_start, settled_to, events_a_week)
    counts = draw_counts(rng, mean * event_factor(mean.shape, events), phi, cv, rho)
    counts[~alive] = np.nan
    counts[:, missing] = np.nan
    variance = variance_of(mean, phi[:, None], cv[:, None])
    return World(
        "mixed", counts, mean, variance, account, application, days, JUDGED_FROM, events, common, alive & ~settled
    )
