"""Small worlds of one shape each, so that what should be told can be read from them.

Where nothing is said, a series has no season, no holidays and no drift.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.worlds import CommonEvent, Event, World
from benchmarks.worlds.mixed import common_factor, draw_counts, event_factor, first_monday, variance_of, working_days

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WEEKS = 150
JUDGED_FROM = 104
THREE_YEARS = 156
SUMMER_STARTS = 26
SUMMER_WEEKS = 10


def _rng(seed: int, shape: int) -> np.random.Generator:
    """Randomness of its own for each shape."""
    return np.random.default_rng([seed, 31415, shape])


def _levels(rng: np.random.Generator, n: int, low: float, high: float) -> Floats:
    """Levels spread evenly on the log scale."""
    return np.exp(rng.uniform(np.log(low), np.log(high), n))


def _flat(levels: Floats, weeks: int = WEEKS) -> Floats:
    """The same mean in every week, (n, weeks)."""
    return np.repeat(levels[:, None], weeks, axis=1)


def _grid(accounts: int, applications: int) -> tuple[Ints, Ints]:
    """Account and application of each series if every account has every application."""
    return np.repeat(np.arange(accounts), applications), np.tile(np.arange(applications), accounts)


def _apart(rng: np.random.Generator, n: int, first: int, last: int) -> list[int]:
    """n different weeks from first to last."""
    return [int(week) for week in first + rng.permutation(last + 1 - first)[:n]]


def _world(
    name: str,
    counts: Floats,
    mean: Floats,
    variance: Floats,
    *,
    account: Ints | None = None,
    application: Ints | None = None,
    days: Floats | None = None,
    judged_from: int = JUDGED_FROM,
    events: list[Event] | None = None,
    common: list[CommonEvent] | None = None,
) -> World:
    """A world. Without more said, each series is an account of its own with application 0."""
    n = len(mean)
    return World(
        name,
        counts,
        mean,
        variance,
        np.arange(n) if account is None else account,
        np.zeros(n, dtype=np.int64) if application is None else application,
        np.ones(mean.shape) if days is None else days,
        judged_from,
        events or [],
        common or [],
    )


def _drawn(
    name: str,
    rng: np.random.Generator,
    mean: Floats,
    phi: float,
    cv: Floats | float,
    *,
    account: Ints | None = None,
    application: Ints | None = None,
    days: Floats | None = None,
    judged_from: int = JUDGED_FROM,
    events: list[Event] | None = None,
    common: list[CommonEvent] | None = None,
) -> World:
    """A world of negative binomial counts: variance phi * mean + (cv * mean)^2. `mean` has the common events."""
    counts = draw_counts(rng, mean * event_factor(mean.shape, events or []), phi, cv)
    variance = variance_of(mean, phi, np.broadcast_to(cv, len(mean))[:, None])
    return _world(
        name,
        counts,
        mean,
        variance,
        account=account,
        application=application,
        days=days,
        judged_from=judged_from,
        events=events,
        common=common,
    )


def _summers(weeks: int) -> NDArray[np.bool_]:
    """Weeks of summer, in years of 52 weeks."""
    in_year = np.arange(weeks) % 52
    return (in_year >= SUMMER_STARTS) & (in_year < SUMMER_STARTS + SUMMER_WEEKS)


def steady_large(seed: int) -> World:
    """200 large accounts with a cv of .2, .35 and .5, and 40 of them with a second application. Nothing happens."""
    rng = _rng(seed, 0)
    n, second = 200, 40
    levels = _levels(rng, n + second, 200, 3000)
    cv = np.concatenate([np.resize([0.2, 0.35, 0.5], n), np.full(second, 0.2)])
    account = np.concatenate([np.arange(n), np.arange(second)])
    application = np.repeat([0, 1], [n, second])
    # the Poisson part included, the cv is the one given
    return _drawn(
        "steady_large", rng, _flat(levels), 1, np.sqrt(cv**2 - 1 / levels), account=account, application=application
    )


def school_summer(seed: int) -> World:
    """40 schools with one application. Each summer it falls to 35 % for ten weeks, three years running."""
    rng = _rng(seed, 1)
    mean = _flat(_levels(rng, 40, 30, 400), THREE_YEARS) * np.where(_summers(THREE_YEARS), 0.35, 1.0)
    return _drawn("school_summer", rng, mean, 1.5, 0.2, judged_from=60)


def schools_among_offices(seed: int) -> World:
    """8 schools (accounts 0 to 7) whose summer is at 15 %, and 42 offices without a season. Judged from summer two."""
    rng = _rng(seed, 2)
    mean = _flat(_levels(rng, 50, 30, 400), THREE_YEARS)
    mean[:8] *= np.where(_summers(THREE_YEARS), 0.15, 1.0)
    return _drawn("schools_among_offices", rng, mean, 1.5, 0.2, judged_from=52 + SUMMER_STARTS)


def one_large_of_many(seed: int) -> World:
    """Account 0 has 80 % of the clicks and stays steady. The 29 small ones lose 60 % for four weeks together."""
    rng = _rng(seed, 3)
    small = _levels(rng, 29, 20, 60)
    levels = np.concatenate([[4 * small.sum()], small])
    cv = np.concatenate([[0.08], np.full(29, 0.2)])
    week = int(rng.integers(110, 140))
    events = [Event(series, week, 4, "drop", 0.4) for series in range(1, 30)]
    return _drawn("one_large_of_many", rng, _flat(levels), 1.5, cv, events=events)


def launch(seed: int) -> World:
    """Application 0 has 1.8 times its clicks for ten weeks at all 40 accounts. Five applications stay quiet."""
    rng = _rng(seed, 4)
    account, application = _grid(40, 6)
    common = [CommonEvent(0, int(rng.integers(108, 130)), 10, 1.8)]
    mean = _flat(_levels(rng, 240, 20, 300)) * common_factor(application, WEEKS, common)
    return _drawn("launch", rng, mean, 1.5, 0.22, account=account, application=application, common=common)


def _campaigns(rng: np.random.Generator, n: int, weeks: int, share: float) -> NDArray[np.bool_]:
    """Weeks in use: campaigns of one to three weeks, pauses of a geometric length, in use a share of the time."""
    before = 200
    pause = 1 / (2 / share - 2)
    found = np.zeros((n, before + weeks), dtype=bool)
    for row in found:
        week = 0
        while week < len(row):
            week += int(rng.geometric(pause))
            length = int(rng.integers(1, 4))
            row[week : week + length] = True
            week += length
    return found[:, before:]


def mostly_zero(seed: int) -> World:
    """60 accounts with campaigns of one to three weeks and nothing in the 65 % between them. Nothing happens.

    A campaign is part of the variance, not of the mean: when it comes cannot be known.
    """
    rng = _rng(seed, 5)
    share, phi, cv = 0.35, 2.0, 0.35
    in_use = _flat(rng.uniform(25, 55, 60))
    counts = draw_counts(rng, in_use * _campaigns(rng, 60, WEEKS, share), phi, cv)
    mean = share * in_use
    variance = share * (variance_of(in_use, phi, cv) + in_use**2) - mean**2
    return _world("mostly_zero", counts, mean, variance)


def bursty_single_user(seed: int) -> World:
    """60 accounts of one user each, whose weeks are log-normal with sigma 1. Nothing happens."""
    rng = _rng(seed, 6)
    mean = _flat(_levels(rng, 60, 5, 60))
    counts = rng.poisson(mean * np.exp(rng.normal(-0.5, 1.0, mean.shape))).astype(np.float64)
    return _world("bursty_single_user", counts, mean, mean + mean**2 * (np.e - 1))


def slow_loss_of_an_application(seed: int) -> World:
    """All 40 accounts of an application lose 3 % a week for 60 weeks, and stay there."""
    rng = _rng(seed, 7)
    week = int(rng.integers(70, 85))
    weeks_of_loss = np.clip(np.arange(WEEKS) - week + 1, 0, 60)
    mean = _flat(_levels(rng, 40, 100, 800)) * 0.97**weeks_of_loss
    common = [CommonEvent(0, week, 60, 0.16)]
    return _drawn("slow_loss_of_an_application", rng, mean, 1, 0.15, judged_from=60, common=common)


def slow_loss_of_accounts(seed: int) -> World:
    """20 of 60 accounts lose 40 % over 52 weeks, each from a week of its own, and stay there."""
    rng = _rng(seed, 8)
    mean = _flat(_levels(rng, 60, 60, 600), 160)
    events = [Event(series, week, 52, "decline", 0.6) for series, week in enumerate(_apart(rng, 20, 70, 104))]
    return _drawn("slow_loss_of_accounts", rng, mean, 1.5, 0.18, judged_from=60, events=events)


def robots(seed: int) -> World:
    """30 robots of mean 500 and cv .03, steadier than Poisson. 10 of them fall to 78 % for good."""
    rng = _rng(seed, 9)
    mean = _flat(rng.uniform(450, 550, 30))
    events = [Event(series, week, 8, "shift", 0.78) for series, week in enumerate(_apart(rng, 10, 106, 140))]
    now = mean * event_factor(mean.shape, events)
    # rounding adds a twelfth to the variance
    counts = np.rint(rng.normal(now, np.sqrt((0.03 * now) ** 2 - 1 / 12)))
    return _world("robots", counts, mean, (0.03 * mean) ** 2, events=events)


def young(seed: int) -> World:
    """40 accounts of 60 clicks a week. 20 of them are five weeks old when they lose 85 % for four weeks."""
    rng = _rng(seed, 10)
    starts = _apart(rng, 20, 105, 135)
    events = [Event(series, start + 5, 4, "drop", 0.15) for series, start in enumerate(starts)]
    world = _drawn("young", rng, np.full((40, WEEKS), 60.0), 1.5, 0.2, events=events)
    for series, start in enumerate(starts):
        world.counts[series, :start] = np.nan
    return world


def doubled_upload(seed: int) -> World:
    """80 accounts with 4 applications. One week counts all twice, another counts 90 % of one application twice."""
    rng = _rng(seed, 11)
    account, application = _grid(80, 4)
    first, second = int(rng.integers(108, 122)), int(rng.integers(130, 144))
    common = [CommonEvent(-1, first, 1, 2.0), CommonEvent(int(rng.integers(4)), second, 1, 1.9)]
    once = _drawn("doubled_upload", rng, _flat(_levels(rng, 320, 15, 300)), 1.5, 0.22)
    again = common_factor(application, WEEKS, common) - 1
    counts = once.counts + rng.binomial(once.counts.astype(np.int64), again)
    variance = (1 + again) ** 2 * once.variance + again * (1 - again) * once.mean
    mean = (1 + again) * once.mean
    return _world("doubled_upload", counts, mean, variance, account=account, application=application, common=common)


def holiday_regions(seed: int) -> World:
    """200 accounts in four regions with holidays of their own, as active as there are working days."""
    rng = _rng(seed, 12)
    days = working_days(first_monday(rng), WEEKS)[1 + np.arange(200) % 4]
    mean = _flat(_levels(rng, 200, 20, 500)) * days
    return _drawn("holiday_regions", rng, mean, 1.5, 0.15, days=days)


def vanishing_users(seed: int) -> World:
    """60 accounts with about 12 active users a week: users, not clicks. 10 fall to 3 users and stay there."""
    rng = _rng(seed, 13)
    users = np.repeat(rng.integers(13, 20, 60)[:, None], WEEKS, axis=1)
    active, left = 0.75, 4
    mean = active * users.astype(np.float64)
    events = [
        Event(series, week, 8, "shift", left / int(users[series, 0]))
        for series, week in enumerate(_apart(rng, 10, 106, 140))
    ]
    now = np.rint(users * event_factor(users.shape, events)).astype(np.int64)
    counts = rng.binomial(now, active).astype(np.float64)
    return _world("vanishing_users", counts, mean, (1 - active) * mean, events=events)


STEP_WEEKS = range(6, 13)


def step_and_back(seed: int) -> World:
    """480 accounts of 5 to 600 clicks with a cv of .1 to .4. 48 step to .3 or .5 for 6 to 12 weeks, and step back."""
    rng = _rng(seed, 14)
    n, stepping = 480, 48
    size, cv = np.array([5, 20, 100, 600]), np.array([0.1, 0.2, 0.3, 0.4])
    cell = rng.permutation(n) % 12
    levels = size[cell % 3] * (size[1:] / size[:-1])[cell % 3] ** rng.random(n)
    weeks = 104 + rng.integers(0, 17, stepping)
    events = [
        Event(series, int(week), int(rng.choice(STEP_WEEKS)), "drop", float(rng.choice([0.3, 0.5])))
        for series, week in enumerate(weeks)
    ]
    return _drawn("step_and_back", rng, _flat(levels), 1.5, cv[cell // 3], events=events)


SHAPES: dict[str, Callable[[int], World]] = {
    shape.__name__: shape
    for shape in (
        steady_large,
        school_summer,
        schools_among_offices,
        one_large_of_many,
        launch,
        mostly_zero,
        bursty_single_user,
        slow_loss_of_an_application,
        slow_loss_of_accounts,
        robots,
        young,
        doubled_upload,
        holiday_regions,
        vanishing_users,
        step_and_back,
    )
}
