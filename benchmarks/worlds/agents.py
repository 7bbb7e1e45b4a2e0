"""A world of people at work: about 300 local governments, 12 applications, and the staff who click.

The weekly count of a series (account x application) is a Poisson draw around the summed daily work of its people:

    rate = season * common events * own events * account * batches * council * campaign * sum of the people's work

A person's week is: not on vacation, not ill (or only in part), a personal burst, and five days of which some are free,
some are full of meetings and all differ in busyness. Vacations last 1.8 weeks on average; batches last three weeks.

Mean and variance follow from the moments of these parts, which are independent of each other. They are exact, not
replicated, given the calendar, the season, the common events and the staff of the week. Ordinary scatter (part of
the variance, not of the mean) are: who is away, batches, campaigns, the account's own good and bad weeks, and the
council rhythm of every second week, because each account has its own phase.
Weeks follow each other: the variance of sums of weeks is larger than the sum of variances.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from benchmarks.worlds import CommonEvent, Event, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WEEKS = 150
JUDGED_FROM = 104
REGIONS = 4
QUIET = 8  # weeks between two events of a series
ONBOARDING = 6
WIND_DOWN = (0.6, 0.3)  # the last two weeks of a subscription that ends

PEOPLE, ROBOT, CAMPAIGN = 0, 1, 2

# one row per application: share of accounts that have it, month-end uplift of a day, swing of the council rhythm
TRAITS = np.array(
    [
        (0.92, 0.2, 0.0),  # registry
        (0.75, 0.3, 0.1),  # permits
        (0.35, 0.0, 0.0),  # pools
        (0.60, 0.5, 0.1),  # budget
        (0.55, 0.0, 0.0),  # school
        (0.60, 0.0, 0.4),  # council
        (0.70, 1.5, 0.0),  # payroll
        (0.65, 0.8, 0.0),  # tax
        (0.45, 0.2, 0.0),  # waste
        (0.40, 0.0, 0.0),  # licenses for festivals
        (0.35, 0.0, 0.0),  # archive
        (0.40, 0.4, 0.15),  # procurement
    ]
)
SCHOOL = 4

# the season by month, January to December
SEASONS = np.array(
    [
        (1.05, 1.0, 1.0, 1.0, 1.0, 1.0, 0.95, 0.95, 1.05, 1.0, 1.0, 0.95),
        (0.8, 0.9, 1.15, 1.2, 1.2, 1.1, 1.0, 0.95, 1.1, 1.0, 0.9, 0.7),
        (0.3, 0.3, 0.45, 0.9, 1.7, 2.4, 2.8, 2.5, 1.2, 0.45, 0.3, 0.3),
        (0.7, 0.6, 0.6, 0.6, 0.6, 0.7, 0.8, 1.2, 2.0, 2.3, 1.9, 1.2),
        (1.1, 1.3, 1.2, 1.0, 0.9, 0.9, 0.8, 0.9, 1.3, 1.0, 0.9, 0.8),
        (0.9, 1.1, 1.1, 1.1, 1.1, 1.2, 0.8, 0.6, 1.1, 1.1, 1.2, 1.1),
        (1.2, 1.0, 1.0, 1.0, 1.0, 1.0, 0.95, 0.95, 1.0, 1.0, 1.1, 1.2),
        (1.6, 1.5, 1.1, 0.9, 1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9),
        (1.8, 1.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 1.0, 1.4),
        (0.5, 0.7, 0.9, 1.2, 1.6, 1.7, 1.4, 1.1, 1.0, 0.8, 0.8, 0.8),
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        (0.6, 0.7, 0.9, 1.0, 1.0, 1.0, 0.9, 0.9, 1.1, 1.2, 1.5, 1.4),
    ]
)

EASTER = {2020: (4, 12), 2021: (4, 4), 2022: (4, 17), 2023: (4, 9), 2024: (3, 31), 2025: (4, 20)}
# day relative to Easter, or month and day, with the regions that keep it
MOVABLE = ((-2, (0, 1, 2, 3)), (1, (0, 1, 2, 3)), (39, (0, 1, 2, 3)), (50, (0, 1, 2, 3)), (60, (0, 1)))
FIXED = (
    ((1, 1), (0, 1, 2, 3)),
    ((1, 6), (0,)),
    ((3, 8), (3,)),
    ((5, 1), (0, 1, 2, 3)),
    ((8, 15), (0,)),
    ((10, 3), (0, 1, 2, 3)),
    ((10, 31), (2, 3)),
    ((11, 1), (0, 1)),
    ((12, 25), (0, 1, 2, 3)),
    ((12, 26), (0, 1, 2, 3)),
)
SUMMER_BEGINS = (30, 26, 28, 25)  # ISO week in which the six weeks of school vacation begin, by region

# a day of a person: at the desk or not, half of it in meetings or not, gamma-distributed busyness of shape 2
AT_DESK, IN_MEETINGS, BUSY_SHAPE = 0.93, 0.3, 2.0
DAY_MEAN = AT_DESK * (1 - IN_MEETINGS / 2)
DAY_SQUARE = AT_DESK * (1 - 0.75 * IN_MEETINGS) * (1 + 1 / BUSY_SHAPE)
ILL_SHARES = np.array([0.0, 0.2, 0.4, 0.6])  # what is left of a week with an illness
VACATION_GOES_ON = 0.45

BATCH_WEIGHTS = np.array([0.55, 0.3, 0.15])  # a batch is worked off within three weeks
BATCH_SIZE_CV = 0.7

LEAVES, REFILLED, REFILLED_LATE, LATE_SHARE = 0.006, 0.15, 0.006, 0.3
BURN_IN = 100
CARRIED_BY_COLLEAGUES = 0.5
JUMP = 1.4  # a change of the staff's capacity by more is nothing ordinary
JUMP_WEEKS = 12

# kind, weeks, factors, probability
KINDS: tuple[tuple[str, int, tuple[float, ...], float], ...] = (
    ("spike", 1, (1.5, 2.0, 3.0, 5.0), 0.19),
    ("drop", 1, (0.7, 0.4, 0.0), 0.13),
    ("drop", 4, (0.7, 0.4, 0.0), 0.45),
    ("shift", 8, (0.5, 0.6, 1.6, 2.0), 0.13),
    ("decline", 20, (0.3,), 0.10),
)


@dataclass(frozen=True)
class Calendar:
    """What the calendar gives to each region and week."""

    working: Floats  # (regions, T, 5), 1 on working days
    month_end: Floats  # (regions, T, 5), 1 on the last three working days of a month
    vacation: Floats  # (regions, T), probability that a person is away for the week
    illness: Floats  # (T,), probability that a person is ill in the week
    school_summer: Bools  # (regions, T)
    year_share: Floats  # (T,), where in the year the week lies, 0 to 1


@dataclass(frozen=True)
class Platform:
    """The series and their fixed traits, each of length n."""

    account: Ints
    application: Ints
    region: Ints
    kind: Ints
    staff: Ints
    target: Floats  # clicks in a typical week
    season_strength: Floats
    empty_summer: Bools
    burst: Floats  # cv of a person's week
    batch_share: Floats
    batch_rate: Floats  # batches a week
    account_cv: Floats
    swing: Floats  # of the council rhythm
    phase: Ints
    robot_cv: Floats
    campaign_share: Floats
    begin: Ints
    end: Ints  # first week after the subscription


@dataclass(frozen=True)
class Staff:
    """The people: slots sorted by series, and the work they can do each week."""

    series: Ints  # (P,)
    first: Ints  # (n,), first slot of each series
    work: Floats  # (P, T)


def make(seed: int, events_a_week: float = 0.008, accounts: int = 300) -> World:
    """Make one world."""
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence([seed, 4711]).spawn(6)]
    calendar = _calendar(date(2021, 1, 4) + timedelta(weeks=int(streams[0].integers(52))))
    platform = _platform(accounts, streams[0])
    staff = _staff(platform, streams[1])
    days = _day_weights(calendar)
    common, common_factor = _common(platform, streams[2])
    shared = _season(platform, calendar) * common_factor * _life(platform)
    mean, variance = _moments(platform, staff, calendar, days, shared)
    left_out = _left_out(platform, staff)
    missing = _missing_weeks(streams[2])
    events = _events(platform, mean, left_out, missing, events_a_week, streams[3])
    rate = shared * _work(platform, staff, calendar, days, streams[4]) * _office(platform, calendar, streams[5])
    counts = streams[5].poisson(rate * _event_factor(events, rate.shape)).astype(float)
    counts[~_subscribed(platform)] = np.nan
    counts[:, missing] = np.nan
    return World(
        name="agents",
        counts=counts,
        mean=mean,
        variance=variance,
        account=platform.account,
        application=platform.application,
        working_days=calendar.working.mean(axis=2)[platform.region],
        judged_from=JUDGED_FROM,
        events=events,
        common=common,
        left_out=left_out,
    )


# calendar


def _calendar(start: date) -> Calendar:
    """Build the calendar of all regions from a Monday on."""
    days = [start + timedelta(days=7 * week + day) for week in range(WEEKS) for day in range(5)]
    free = [_holidays(region) for region in range(REGIONS)]
    working = np.array([[day not in free[r] for day in days] for r in range(REGIONS)], dtype=float)
    ends = np.array([_month_ends(days, working[r]) for r in range(REGIONS)])
    working, ends = working.reshape(REGIONS, WEEKS, 5), ends.reshape(REGIONS, WEEKS, 5)
    iso = np.array([days[5 * week].isocalendar()[1] for week in range(WEEKS)])
    begins = np.array(SUMMER_BEGINS)[:, None]
    summer = (iso >= begins) & (iso < begins + 6)
    share = np.array([((days[5 * week + 2].timetuple().tm_yday - 1) / 365.25) for week in range(WEEKS)])
    illness = 0.05 + 0.03 * np.cos(2 * np.pi * (share - 0.1))
    return Calendar(working, ends, _vacation(days, iso, summer, working), illness, summer, share)


def _holidays(region: int) -> set[date]:
    """List the public holidays of a region."""
    found: set[date] = set()
    for year, (month, day) in EASTER.items():
        easter = date(year, month, day)
        found |= {easter + timedelta(days=shift) for shift, regions in MOVABLE if region in regions}
        found |= {date(year, *month_day) for month_day, regions in FIXED if region in regions}
    return found


def _month_ends(days: list[date], working: Floats) -> Floats:
    """Mark the last three working days of each month."""
    bools = np.zeros(len(days))
    at_work = np.flatnonzero(working)
    months = np.array([days[i].year * 12 + days[i].month for i in at_work])
    bools[at_work[:-3][months[:-3] != months[3:]]] = 1
    return bools


def _vacation(days: list[date], iso: Ints, summer: Bools, working: Floats) -> Floats:
    """Give the probability of a vacation week: summer, Christmas, Easter, autumn and weeks with bridge days."""
    easters = [date(year, *month_day) for year, month_day in EASTER.items()]
    mondays = days[::5]
    easter = np.array([any(-9 <= (monday - e).days <= 3 for e in easters) for monday in mondays])
    christmas = np.array([_around_christmas(monday) for monday in mondays])
    bridge = ((working[:, :, 3] == 0) & (working[:, :, 4] == 1)) | ((working[:, :, 1] == 0) & (working[:, :, 0] == 1))
    probability = 0.055 + 0.15 * summer + 0.07 * ((iso >= 27) & (iso <= 35)) + 0.08 * easter
    probability = probability + 0.06 * ((iso >= 41) & (iso <= 44)) + 0.08 * bridge
    return np.where(christmas, 0.6, probability)


def _around_christmas(monday: date) -> bool:
    """Tell whether a week holds a working day from December 24 to January 1."""
    found = [monday + timedelta(days=day) for day in range(5)]
    return any((d.month == 12 and d.day >= 24) or (d.month == 1 and d.day == 1) for d in found)


def _day_weights(calendar: Calendar) -> Floats:
    """Weigh the days by region and application: none on holidays, more at the end of a month."""
    uplift = TRAITS[:, 1][None, :, None, None]
    usual = 3 / 21
    return calendar.working[:, None] * (1 + uplift * calendar.month_end[:, None]) / (1 + uplift * usual)


# platform


def _platform(accounts: int, rng: np.random.Generator) -> Platform:
    """Draw the accounts, what they subscribe to and how they work with it."""
    size = rng.normal(0, 0.7, accounts)
    region_of = rng.integers(REGIONS, size=accounts)
    account, application = np.nonzero(rng.random((accounts, len(TRAITS))) < TRAITS[:, 0])
    n = len(account)
    staff = np.clip(np.rint(np.exp(1.35 + size[account] + rng.normal(0, 0.8, n))), 1, 60).astype(int)
    draw = rng.random(n)
    kind = np.where(draw < 0.03, ROBOT, np.where(draw < 0.07, CAMPAIGN, PEOPLE))
    bursting = (staff == 1) & (rng.random(n) < 0.4)
    account_cv = rng.uniform(0.02, 0.08, accounts)
    begin, end = _spans(n, rng)
    return Platform(
        account=account,
        application=application,
        region=region_of[account],
        kind=kind,
        staff=staff,
        target=_targets(staff, kind, rng),
        season_strength=rng.uniform(0.6, 1.3, n),
        empty_summer=(application == SCHOOL) & (rng.random(n) < 0.6),
        burst=np.where(bursting, rng.uniform(0.5, 0.65, n), rng.uniform(0.1, 0.4, n)),
        batch_share=rng.choice([0.05, 0.15, 0.3, 0.5], n),
        batch_rate=rng.uniform(0.7, 2.0, n) * np.sqrt(staff),
        account_cv=account_cv[account],
        swing=TRAITS[application, 2] * rng.uniform(0.5, 1.2, n),
        phase=rng.integers(2, size=accounts)[account],
        robot_cv=rng.uniform(0.01, 0.06, n),
        campaign_share=rng.uniform(0.06, 0.2, n),
        begin=begin,
        end=end,
    )


def _targets(staff: Ints, kind: Ints, rng: np.random.Generator) -> Floats:
    """Draw the clicks of a typical week: people times intensity, from 0.5 to 2000."""
    clicks = staff * np.exp(rng.normal(1.5, 1.55, len(staff)))
    again = np.exp(rng.uniform(np.log(0.5), np.log(2000), len(staff)))
    robots = np.exp(rng.uniform(np.log(20), np.log(1500), len(staff)))
    clicks = np.where((clicks < 0.5) | (clicks > 2000), again, clicks)
    return np.where(kind == ROBOT, robots, clicks)


def _spans(n: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw begin and end of the subscriptions: some begin later, some end."""
    begin = np.where(rng.random(n) < 0.15, rng.integers(5, WEEKS - 30, n), 0)
    lasts = np.maximum(rng.integers(40, WEEKS - 4, n), begin + 25)
    return begin, np.where(rng.random(n) < 0.08, np.minimum(lasts, WEEKS), WEEKS)


def _subscribed(platform: Platform) -> Bools:
    """Mark the weeks inside the subscriptions."""
    week = np.arange(WEEKS)
    return (week >= platform.begin[:, None]) & (week < platform.end[:, None])


def _life(platform: Platform) -> Floats:
    """Give the ramp of the first weeks of new series, and the fading of the last two of ending ones."""
    week = np.arange(WEEKS)
    since = week - platform.begin[:, None]
    ramp = np.minimum((since + 1) / (ONBOARDING + 1), 1.0)
    ramp[(platform.begin[:, None] == 0) | (since < 0)] = 1.0
    until = platform.end[:, None] - week
    ends = platform.end[:, None] < WEEKS
    return ramp * np.where(ends & (until == 2), WIND_DOWN[0], np.where(ends & (until == 1), WIND_DOWN[1], 1.0))


def _season(platform: Platform, calendar: Calendar) -> Floats:
    """Give the season of each series. Robots know none; some school series are all but empty in summer."""
    middle = (np.arange(12) + 0.5) / 12
    curves = np.array([np.interp(calendar.year_share, middle, months, period=1) for months in SEASONS])
    curves /= SEASONS.mean(axis=1, keepdims=True)
    season = curves[platform.application] ** platform.season_strength[:, None]
    empty = platform.empty_summer[:, None] & calendar.school_summer[platform.region]
    season[empty] = 0.02
    season[platform.kind == ROBOT] = 1.0
    return season


def _common(platform: Platform, rng: np.random.Generator) -> tuple[list[CommonEvent], Floats]:
    """Draw two or three events of applications and one of all. Each series answers in its own strength."""
    applications = rng.choice(len(TRAITS), size=rng.integers(2, 4), replace=False)
    found, factor = [], np.ones((len(platform.account), WEEKS))
    for application in [*applications.tolist(), -1]:
        strength = rng.uniform(0.4, 0.7) if rng.random() < 0.5 else rng.uniform(1.4, 2.0)
        weeks = int(rng.integers(1, 5))
        week = int(rng.integers(JUDGED_FROM, WEEKS - weeks + 1))
        found.append(CommonEvent(application, week, weeks, float(strength)))
        hit = np.flatnonzero((platform.application == application) | (application == -1))
        factor[hit, week : week + weeks] *= (strength ** rng.uniform(0.7, 1.3, len(hit)))[:, None]
    return found, factor


def _missing_weeks(rng: np.random.Generator) -> Ints:
    """Draw the two or three weeks that never arrived, at least one of them while judged."""
    early = rng.choice(np.arange(10, JUDGED_FROM), size=rng.integers(1, 3), replace=False)
    return np.append(early, rng.integers(JUDGED_FROM + 1, WEEKS - 1))


# people


def _staff(platform: Platform, rng: np.random.Generator) -> Staff:
    """Let people join and leave, and scale their work to the clicks of a typical week."""
    series = np.repeat(np.arange(len(platform.staff)), platform.staff)
    first = np.concatenate([[0], np.cumsum(platform.staff)[:-1]])
    job = np.exp(rng.normal(0, 0.6, len(series)))
    work = _turnover(series, first, job, rng)
    there = np.add.reduceat(work, first, axis=0)
    vacant = np.add.reduceat(np.where(work == 0, job[:, None], 0.0), first, axis=0)
    carried = np.divide(CARRIED_BY_COLLEAGUES * vacant, there, out=np.zeros_like(there), where=there > 0)
    usual_days = 5 * DAY_MEAN * 0.87
    scale = platform.target / (np.add.reduceat(job, first) * usual_days)
    scale = scale[:, None] * (1 + np.minimum(carried, 1.0))
    return Staff(series, first, work * scale[series])


def _turnover(series: Ints, first: Ints, job: Floats, rng: np.random.Generator) -> Floats:
    """Walk through the weeks: who leaves, who follows at once or later, and how much each does. 0 is a vacant slot."""
    slots = len(job)
    work, late = job * _person(slots, rng), np.zeros(slots, dtype=bool)
    found = np.zeros((slots, WEEKS))
    for week in range(-BURN_IN, WEEKS):
        leaving = (work > 0) & (rng.random(slots) < LEAVES)
        comes = (work == 0) & (rng.random(slots) < np.where(late, REFILLED_LATE, REFILLED))
        remaining = np.add.reduceat(((work > 0) & ~leaving).astype(int), first)[series]
        last = leaving & (remaining == 0)
        work[leaving] = 0
        late = np.where(leaving, (rng.random(slots) < LATE_SHARE) & ~last, late)
        comes |= last & (rng.random(slots) < 0.8)
        work = np.where(comes, job * _person(slots, rng), work)
        if week >= 0:
            found[:, week] = work
    return found


def _person(size: int, rng: np.random.Generator) -> Floats:
    """Draw the productivity of persons."""
    return rng.lognormal(-0.045, 0.3, size)


def _left_out(platform: Platform, staff: Staff) -> Bools:
    """Leave out onboarding, the end, and twelve weeks from each jump of a staff's capacity on."""
    capacity = np.add.reduceat(staff.work, staff.first, axis=0)
    capacity[platform.kind == ROBOT] = 1.0
    found = np.zeros(capacity.shape, dtype=bool)
    free_from = np.zeros(len(capacity), dtype=int)
    for week in range(8, WEEKS):
        before = capacity[:, week - 8 : week].mean(axis=1)
        jump = (capacity[:, week] * JUMP < before) | (capacity[:, week] > before * JUMP) | (capacity[:, week] == 0)
        free_from = np.where(jump & (free_from <= week), week + JUMP_WEEKS, free_from)
        found[:, week] = week < free_from
    weeks = np.arange(WEEKS)
    since, until = weeks - platform.begin[:, None], platform.end[:, None] - weeks
    found |= (platform.begin[:, None] > 0) & (since >= 0) & (since < ONBOARDING)
    return found | ((platform.end[:, None] < WEEKS) & (until >= 1) & (until <= 2))


def _work(platform: Platform, staff: Staff, calendar: Calendar, days: Floats, rng: np.random.Generator) -> Floats:
    """Simulate each person's week and sum them by series. Robots do the same every week."""
    slots = len(staff.series)
    region, application = platform.region[staff.series], platform.application[staff.series]
    shape = 1 / platform.burst[staff.series] ** 2
    mood = rng.random(slots)
    found = np.zeros((len(platform.account), WEEKS))
    for week in range(WEEKS):
        mood = np.where(rng.random(slots) < VACATION_GOES_ON, mood, rng.random(slots))
        here = mood >= calendar.vacation[region, week]
        ill = rng.random(slots) < calendar.illness[week]
        share = np.where(ill, rng.choice(ILL_SHARES, slots), 1.0)
        done = (_days(slots, rng) * days[region, application, week]).sum(axis=1)
        done *= here * share * rng.standard_gamma(shape) / shape
        found[:, week] = np.add.reduceat(done * staff.work[:, week], staff.first)
    robots = platform.kind == ROBOT
    found[robots] = platform.target[robots, None]
    return found


def _days(slots: int, rng: np.random.Generator) -> Floats:
    """Draw the work of five days of each person."""
    draw = rng.random((slots, 5))
    desk = np.where(draw < AT_DESK * IN_MEETINGS, 0.5, np.where(draw < AT_DESK, 1.0, 0.0))
    return desk * rng.standard_gamma(BUSY_SHAPE, (slots, 5)) / BUSY_SHAPE


# what a whole office shares


def _office(platform: Platform, calendar: Calendar, rng: np.random.Generator) -> Floats:
    """Give the scatter shared by an office, with mean 1: account, batches, council, campaigns, robots."""
    people = (platform.kind != ROBOT)[:, None]
    accounts = np.unique(platform.account, return_index=True)
    shape = 1 / platform.account_cv[accounts[1]] ** 2
    of_account = np.empty((platform.account.max() + 1, WEEKS))
    of_account[accounts[0]] = rng.standard_gamma(shape[:, None], (len(shape), WEEKS)) / shape[:, None]
    found = of_account[platform.account] * _batches(platform, rng)
    sign = np.where((np.arange(WEEKS) + platform.phase[:, None]) % 2 == 0, 1.0, -1.0)
    found *= 1 + _council_swing(platform, calendar) * sign
    campaign = platform.kind == CAMPAIGN
    found[campaign] *= _campaigns(platform.campaign_share[campaign], rng)
    shape = 1 / platform.robot_cv[:, None] ** 2
    return np.where(people, found, rng.standard_gamma(shape, found.shape) / shape)


def _council_swing(platform: Platform, calendar: Calendar) -> Floats:
    """Give the swing of the council rhythm. The council does not meet in summer."""
    return np.where(calendar.school_summer[platform.region], 0.0, platform.swing[:, None])


def _batches(platform: Platform, rng: np.random.Generator) -> Floats:
    """Let batches of work arrive and be worked off within three weeks, on top of steady work."""
    rate = platform.batch_rate[:, None]
    arrived = rng.poisson(rate, (len(platform.account), WEEKS + 2))
    shape = 1 / BATCH_SIZE_CV**2
    size = rng.standard_gamma(np.maximum(arrived * shape, 1e-9)) / shape / rate
    size[arrived == 0] = 0
    load = np.zeros((len(size), WEEKS))
    for lag, weight in enumerate(BATCH_WEIGHTS):
        load += weight * size[:, 2 - lag : 2 - lag + WEEKS]
    return 1 - platform.batch_share[:, None] + platform.batch_share[:, None] * load


def _campaigns(share: Floats, rng: np.random.Generator) -> Floats:
    """Switch campaigns on and off. They last three weeks on average."""
    starts = share / (1 - share) / 3
    on = rng.random(len(share)) < share
    found = np.zeros((len(share), WEEKS))
    for week in range(WEEKS):
        on = np.where(on, rng.random(len(share)) >= 1 / 3, rng.random(len(share)) < starts)
        found[:, week] = on / share
    return found


# truth


def _moments(
    platform: Platform, staff: Staff, calendar: Calendar, days: Floats, shared: Floats
) -> tuple[Floats, Floats]:
    """Compute mean and variance of the weekly counts without own events, from the moments of all parts."""
    weights = days[platform.region, platform.application]
    here = 1 - calendar.vacation[platform.region]
    once = here * (1 - calendar.illness * (1 - ILL_SHARES.mean())) * DAY_MEAN * weights.sum(axis=2)
    day_variance = DAY_SQUARE - DAY_MEAN**2
    square = day_variance * (weights**2).sum(axis=2) + (DAY_MEAN * weights.sum(axis=2)) ** 2
    square *= here * (1 - calendar.illness * (1 - (ILL_SHARES**2).mean())) * (1 + platform.burst[:, None] ** 2)
    people = np.add.reduceat(staff.work, staff.first, axis=0) * once
    scatter = np.add.reduceat(staff.work**2, staff.first, axis=0) * (square - once**2)
    robots = platform.kind == ROBOT
    people[robots], scatter[robots] = platform.target[robots, None], 0.0
    mean = shared * people
    second = shared**2 * (scatter + people**2) * _office_square(platform, calendar)
    mean_floored = np.maximum(mean, 1e-3)
    return mean_floored, np.maximum(mean + second - mean**2, mean_floored)


def _office_square(platform: Platform, calendar: Calendar) -> Floats:
    """Give the second moment of what an office shares."""
    batches = platform.batch_share**2 * (1 + BATCH_SIZE_CV**2) / platform.batch_rate * (BATCH_WEIGHTS**2).sum()
    found = ((1 + platform.account_cv**2) * (1 + batches))[:, None] * (1 + _council_swing(platform, calendar) ** 2)
    found *= np.where(platform.kind == CAMPAIGN, 1 / platform.campaign_share, 1.0)[:, None]
    return np.where((platform.kind == ROBOT)[:, None], 1 + platform.robot_cv[:, None] ** 2, found)


# events


def _events(
    platform: Platform, mean: Floats, left_out: Bools, missing: Ints, events_a_week: float, rng: np.random.Generator
) -> list[Event]:
    """Draw the events of each series. Series used in campaigns only get none: nobody could tell them."""
    found: list[Event] = []
    if events_a_week <= 0:
        return found
    shares = np.array([kind[3] for kind in KINDS])
    for series in np.flatnonzero(platform.kind != CAMPAIGN).tolist():
        week = JUDGED_FROM + int(rng.geometric(events_a_week)) - 1
        while week < WEEKS:
            kind, weeks, factors, _ = KINDS[rng.choice(len(KINDS), p=shares)]
            event = Event(series, week, weeks, kind, float(rng.choice(factors)))
            fits = _fits(event, platform, mean[series], left_out[series], missing)
            if fits:
                found.append(event)
            if fits and _for_good(event):
                break
            week += (weeks + QUIET if fits else 1) + int(rng.geometric(events_a_week)) - 1
    return found


def _fits(event: Event, platform: Platform, mean: Floats, left_out: Bools, missing: Ints) -> bool:
    """Tell whether an event fits: inside the subscription, twelve weeks after its begin, where something is used."""
    last = event.week + event.weeks
    end = int(platform.end[event.series])
    begin = int(platform.begin[event.series])
    if last > (end if end == WEEKS else end - len(WIND_DOWN)) or (begin > 0 and event.week < begin + 12):
        return False
    if left_out[event.week - 1 : last].any() or event.week in missing:
        return False
    return bool(mean[event.week : last].mean() >= 0.3 * np.median(mean[begin:end]))


def _for_good(event: Event) -> bool:
    """Tell whether the level stays changed. Such an event is the last of its series."""
    return event.kind in ("shift", "decline")


def _event_factor(events: list[Event], shape: tuple[int, ...]) -> Floats:
    """Lay the factors of the events over series and weeks. Declines are linear."""
    found = np.ones(shape)
    for event in events:
        last = event.week + event.weeks
        found[event.series, event.week : (shape[1] if _for_good(event) else last)] = event.factor
        if event.kind == "decline":
            steps = np.arange(1, event.weeks + 1) / event.weeks
            found[event.series, event.week : last] = 1 - (1 - event.factor) * steps
    return found
