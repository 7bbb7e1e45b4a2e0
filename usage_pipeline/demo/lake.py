"""A demo lake: believable usage of a vendor's applications by local governments, and the truth about it.

Belongs here: making up data, seeded and reproducible: the same seed, as_of and size give the same files. Does not:
anything that the pipeline could read the answers from. `truth/` lies beside the lake, for tests only.

What is planted: seasons (summer and year-end lows, a peak for each kind of application), US public holidays, an
onboarding wave, spikes, drops, slow declines, applications gone silent, two platform-wide moves, one week whose week-end
arrives in the next folder, ends of one application and of whole accounts, returns, renewals at another value, accounts
without subscriptions, main users who leave while others take over, and seats for fewer than come.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.core.weeks import WEEK, folder_of, monday_of

WEEKS = 156

# key, name, type, share of accounts that own it, clicks relative to the account's size, records a click, busiest week
_APPLICATIONS = (
    ("permits", "Permits", "Community Development", 0.62, 1.6, 0.22, 22),
    ("code_enforcement", "Code Enforcement", "Community Development", 0.58, 1.2, 0.30, 26),
    ("licensing", "Licensing", "Community Development", 0.46, 0.8, 0.25, 4),
    ("planning", "Planning and Zoning", "Community Development", 0.34, 0.5, 0.10, 16),
    ("inspections", "Inspections", "Community Development", 0.40, 1.0, 0.35, 24),
    ("work_orders", "Work Orders", "Public Works", 0.55, 1.5, 0.28, 20),
    ("fleet", "Fleet", "Public Works", 0.36, 0.7, 0.20, 12),
    ("signs", "Signs", "Public Works", 0.24, 0.3, 0.15, 18),
    ("pavement", "Pavement", "Public Works", 0.22, 0.3, 0.12, 19),
    ("facilities", "Facilities", "Public Works", 0.28, 0.5, 0.18, 10),
    ("stormwater", "Stormwater", "Public Works", 0.26, 0.4, 0.20, 15),
    ("water_service", "Water Service", "Utilities", 0.30, 0.9, 0.24, 28),
    ("sewer", "Sewer", "Utilities", 0.24, 0.5, 0.20, 14),
    ("backflow", "Backflow", "Utilities", 0.22, 0.4, 0.32, 21),
    ("utility_billing", "Utility Billing", "Utilities", 0.34, 1.4, 0.40, 2),
    ("citizen_requests", "Citizen Requests", "Citizen Services", 0.48, 1.1, 0.45, 23),
    ("payments", "Payments", "Citizen Services", 0.38, 1.0, 0.60, 3),
    ("cemetery", "Cemetery", "Citizen Services", 0.18, 0.2, 0.08, 21),
    ("parks", "Parks and Recreation", "Citizen Services", 0.26, 0.6, 0.25, 25),
    ("documents", "Documents", "Administration", 0.42, 0.9, 0.15, 5),
)
_STATES = {
    "UT": "West", "ID": "West", "CO": "West", "WY": "West", "OR": "West",
    "OH": "Midwest", "MI": "Midwest", "WI": "Midwest", "IA": "Midwest",
    "TX": "South", "GA": "South", "TN": "South",
    "NY": "Northeast", "PA": "Northeast", "VT": "Northeast",
}  # fmt: skip
_FIRST = [
    "Maple",
    "Cedar",
    "Pine",
    "Oak",
    "Birch",
    "Elm",
    "Willow",
    "Aspen",
    "Juniper",
    "Laurel",
    "Granite",
    "Copper",
    "Silver",
    "Iron",
    "Stone",
    "Clear",
    "Rock",
    "Sand",
    "River",
    "Lake",
    "Spring",
    "Meadow",
    "Prairie",
    "Canyon",
    "Summit",
    "Harbor",
    "Mill",
    "Bridge",
    "Fox",
    "Eagle",
    "Bear",
    "Deer",
    "Elk",
    "Heron",
    "Falcon",
    "Wolf",
    "North",
    "South",
    "East",
    "West",
    "Green",
    "White",
    "Red",
    "Blue",
    "Fair",
    "New",
    "Grand",
    "High",
]
_SECOND = [
    "ton",
    "ville",
    "field",
    "wood",
    "dale",
    "ford",
    "brook",
    "haven",
    "port",
    "view",
    "mont",
    "land",
    "ridge",
    "crest",
    "side",
    "bury",
    "worth",
    "stead",
]
_OWNERS = ("Ana Ruiz", "Ben Okafor", "Carla Lind", "Dev Patel", "Emma Novak", "Femi Ade", "Grace Kim", "Hugo Sato")
_GIVEN = [
    "Alex",
    "Bailey",
    "Casey",
    "Dana",
    "Elliot",
    "Frankie",
    "Gale",
    "Harper",
    "Indigo",
    "Jamie",
    "Kelly",
    "Logan",
    "Morgan",
    "Noel",
    "Parker",
    "Quinn",
    "Riley",
    "Sage",
    "Taylor",
    "Val",
    "Avery",
    "Blair",
    "Cameron",
    "Drew",
    "Emery",
    "Finley",
    "Hayden",
    "Jordan",
    "Kai",
    "Lane",
]
_FAMILY = [
    "Abbott",
    "Barnes",
    "Castillo",
    "Dunn",
    "Ellis",
    "Fischer",
    "Grant",
    "Hughes",
    "Ibarra",
    "Jensen",
    "Keller",
    "Lopez",
    "Meyer",
    "Nguyen",
    "Olsen",
    "Pratt",
    "Quist",
    "Reyes",
    "Schmidt",
    "Tanner",
    "Underwood",
    "Vance",
    "Walsh",
    "Young",
    "Zimmer",
    "Archer",
    "Boone",
    "Crane",
    "Doyle",
    "Frost",
]
_ROLES = ("City Clerk", "Building Official", "Public Works Director", "Code Officer", "Analyst", "Administrator")
_WEEKDAYS = np.array([0.21, 0.21, 0.20, 0.19, 0.15, 0.025, 0.015])
# what tells the numbers drawn for renewals from those of weeks
_RENEWALS = 20_001
_FOREVER = np.datetime64("2100-01-01", "D")


@dataclass
class _Portfolio:
    """Everything about accounts and their applications before a single click is drawn."""

    accounts: pd.DataFrame
    owned: pd.DataFrame
    weeks: list[date]
    expected: np.ndarray[Any, Any]
    truth: dict[str, Any]
    # people who left: account, number of the user in it, first week (by number) without them
    left: list[tuple[int, int, int]] = field(default_factory=list)


def _nth(year: int, month: int, weekday: int, n: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (n - 1))


def _holidays(year: int) -> set[date]:
    memorial = max(d for d in (_nth(year, 5, 0, n) for n in (4, 5)) if d.month == 5)
    thanksgiving = _nth(year, 11, 3, 4)
    fixed = {date(year, 1, 1), date(year, 6, 19), date(year, 7, 4), date(year, 11, 11), date(year, 12, 25)}
    moving = {_nth(year, 1, 0, 3), _nth(year, 2, 0, 3), memorial, _nth(year, 9, 0, 1), thanksgiving}
    return fixed | moving | {thanksgiving + timedelta(days=1), date(year, 12, 24)}


def _day_weights(week: date) -> np.ndarray[Any, Any]:
    closed = _holidays(week.year) | _holidays(week.year + 1)
    open_days = np.array([(week + timedelta(days=i)) not in closed for i in range(7)])
    return _WEEKDAYS * np.where(open_days, 1.0, 0.04)


def _season(week: date, busiest: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    number = week.isocalendar().week
    wave = 1 + 0.18 * np.cos(2 * np.pi * (number - busiest) / 52.18)
    summer = 1 - 0.16 * np.exp(-(((number - 29) / 3.0) ** 2))
    year_end = 1 - 0.30 * np.exp(-((min(abs(number - 52), number) / 1.2) ** 2))
    season: np.ndarray[Any, Any] = wave * summer * year_end * _day_weights(week).sum()
    return season


def _accounts(rng: np.random.Generator, count: int) -> pd.DataFrame:
    segments = rng.choice(["Town", "City", "County", "District"], count, p=[0.42, 0.26, 0.18, 0.14])
    states = rng.choice(list(_STATES), count)
    places = [f + s for f in _FIRST for s in _SECOND]
    order = rng.permutation(max(count, len(places)))[:count]
    names = []
    for i, segment, state in zip(order, segments, states, strict=True):
        place = places[i % len(places)] + (f" {i // len(places) + 1}" if i >= len(places) else "")
        pattern = {
            "Town": "Town of {}", "City": "City of {}", "County": "{} County", "District": "{} Water District"
        }[segment]  # fmt: skip
        names.append(f"{pattern.format(place)}, {state}")
    scale = pd.Series(segments).map({"Town": 6.0, "City": 26.0, "County": 48.0, "District": 10.0}).to_numpy()
    size = np.clip(scale * rng.lognormal(0, 0.95, count), 1.0, 900.0)
    return pd.DataFrame(
        {
            "account_id": [f"A{i:05d}" for i in range(1, count + 1)],
            "account_name": names,
            "segment": segments,
            "region": [_STATES[s] for s in states],
            "country": "US",
            "state": states,
            "owner": rng.choice(_OWNERS, count),
            "size": size,
            "users": np.maximum(2, (1.6 * np.sqrt(size) * rng.uniform(0.8, 1.6, count)).astype(int)),
        }
    )


def _owned(rng: np.random.Generator, accounts: pd.DataFrame, weeks: list[date]) -> pd.DataFrame:
    count = len(accounts)
    own = np.array([a[3] for a in _APPLICATIONS])
    appetite = np.clip(0.55 + 0.12 * np.log(accounts["size"].to_numpy()), 0.3, 1.35)
    owned = rng.random((count, len(own))) < np.clip(appetite[:, None] * own[None, :], 0, 0.97)
    owned[np.arange(count), rng.integers(0, 6, count)] = True
    account, application = np.nonzero(owned)
    level = np.array([a[4] for a in _APPLICATIONS])[application]
    owned = pd.DataFrame({"account": account, "application": application})
    owned["mean"] = np.clip(accounts["size"].to_numpy()[account] * level * rng.lognormal(0, 0.6, len(owned)), 0.6, 2200)
    owned["users"] = np.clip(
        np.round(accounts["users"].to_numpy()[account] * rng.uniform(0.2, 0.9, len(owned))), 1, None
    ).astype(int)
    owned["offset"] = rng.integers(0, 10_000, len(owned))
    owned["dispersion"] = rng.uniform(6, 25, len(owned))

    begin = np.datetime64(weeks[0])
    old = begin - rng.integers(60, 1500, count).astype("timedelta64[D]")
    fresh = begin + rng.integers(60, 7 * (len(weeks) - 8), count).astype("timedelta64[D]")
    wave = np.datetime64(weeks[int(len(weeks) * 0.62)]) + rng.integers(0, 21, count).astype("timedelta64[D]")
    kind = rng.random(count)
    start = np.where(kind < 0.72, old, np.where(kind < 0.90, fresh, wave))
    accounts["start"] = start
    accounts["in_wave"] = kind >= 0.90
    later = rng.random(len(owned)) < 0.22
    delay = rng.integers(20, 500, len(owned)).astype("timedelta64[D]")
    owned["start"] = start[account] + np.where(later, delay, np.timedelta64(0, "D"))
    last = np.datetime64(weeks[-1])
    owned["start"] = np.minimum(owned["start"].to_numpy().astype("datetime64[D]"), last - np.timedelta64(21, "D"))
    owned["end"] = _FOREVER
    owned["notice"] = np.datetime64("NaT", "D")
    owned["back"] = np.datetime64("NaT", "D")
    owned["reason"] = ""
    accounts["end"] = _FOREVER
    accounts["has_subscription"] = rng.random(count) >= 0.015
    return owned


def _ends(
    rng: np.random.Generator, accounts: pd.DataFrame, owned: pd.DataFrame, weeks: list[date], with_signs: bool
) -> None:
    """Ends of one application, ends of whole accounts, notices still running, and returns.

    Without signs a subscription ends on a day that knows nothing of its start either; what was drawn for too early a day
    does not end at all.
    """
    first, last = np.datetime64(weeks[0]), np.datetime64(weeks[-1])
    span = int((last - first).astype(int))

    def pick(index: np.ndarray[Any, Any], share: float) -> np.ndarray[Any, Any]:
        chosen: np.ndarray[Any, Any] = index[rng.random(len(index)) < share]
        return chosen

    eligible = owned.index[accounts["has_subscription"].to_numpy()[owned["account"]]].to_numpy()
    for i in pick(eligible, 0.09):
        drawn = first + np.timedelta64(int(rng.integers(100, span)), "D")
        end = max(owned.at[i, "start"] + np.timedelta64(150, "D"), drawn) if with_signs else drawn
        if end >= last + np.timedelta64(60, "D") or end < owned.at[i, "start"] + np.timedelta64(100, "D"):
            continue
        completed = rng.random() < 0.18
        owned.at[i, "end"] = end
        owned.at[i, "reason"] = "completed" if completed else "cancelled"
        if not completed:
            owned.at[i, "notice"] = end - np.timedelta64(int(rng.integers(30, 92)), "D")
            if rng.random() < 0.16:
                back = end + np.timedelta64(int(rng.integers(60, 240)), "D")
                if back < last - np.timedelta64(60, "D"):
                    owned.at[i, "back"] = back
    for i in pick(eligible, 0.012):
        if owned.at[i, "end"] == _FOREVER:  # notice is given, and the application is still subscribed
            owned.at[i, "end"] = last + np.timedelta64(int(rng.integers(10, 80)), "D")
            owned.at[i, "notice"] = last - np.timedelta64(int(rng.integers(1, 40)), "D")
            owned.at[i, "reason"] = "cancelled"
    for a in pick(np.nonzero(accounts["has_subscription"].to_numpy())[0], 0.06):
        start = accounts["start"].to_numpy().astype("datetime64[D]")[a]
        drawn = first + np.timedelta64(int(rng.integers(200, span)), "D")
        end = max(start + np.timedelta64(200, "D"), drawn) if with_signs else drawn
        if start + np.timedelta64(130, "D") <= end < last - np.timedelta64(7, "D"):
            accounts.loc[a, "end"] = pd.Timestamp(end)
            accounts.loc[a, "account_notice"] = pd.Timestamp(end - np.timedelta64(int(rng.integers(30, 120)), "D"))


def _plant(rng: np.random.Generator, portfolio: _Portfolio, with_signs: bool) -> None:
    """Writes events into the expected usage, and what was written into the truth.

    Where ends have signs, events happen to subscriptions that go on, and usage fades before a notice.
    """
    accounts, owned, weeks, expected = portfolio.accounts, portfolio.owned, portfolio.weeks, portfolio.expected
    count, span = len(owned), len(weeks)
    events: list[dict[str, Any]] = []
    whole_end = accounts["end"].to_numpy().astype("datetime64[D]")[owned["account"]]
    goes_on = np.minimum(owned["end"].to_numpy().astype("datetime64[D]"), whole_end) == _FOREVER
    running = (goes_on | (not with_signs)) & (
        owned["start"].to_numpy().astype("datetime64[D]") < np.datetime64(weeks[-40])
    )
    free = rng.permutation(np.nonzero(running)[0]).tolist()

    def note(kind: str, one: int, first: int, last: int, factor: float) -> None:
        events.append(
            {
                "kind": kind,
                "account_id": accounts.at[int(owned.at[one, "account"]), "account_id"],
                "application": _APPLICATIONS[int(owned.at[one, "application"])][0],
                "first_week": weeks[first].isoformat(),
                "last_week": weeks[last].isoformat(),
                "factor": round(float(factor), 3),
                "weekly_mean": round(float(owned.at[one, "mean"]), 2),
            }
        )

    def take(share: float) -> list[int]:
        return [free.pop() for _ in range(min(len(free), max(2, round(count * share))))]

    for one in take(0.03):
        at, factor = int(rng.integers(span - 100, span - 1)), rng.uniform(3, 8)
        expected[one, at] *= factor
        note("spike", one, at, at, factor)
    for one in take(0.03):
        length, factor = int(rng.integers(1, 7)), rng.choice([0.0, 0.1, 0.25])
        at = int(rng.integers(span - 100, span - 1 - length))
        expected[one, at : at + length] *= factor
        note("drop", one, at, at + length - 1, factor)
    for one in take(0.025):
        length, final = int(rng.integers(16, 27)), rng.uniform(0.1, 0.35)
        expected[one, span - length :] *= np.linspace(1, final, length)
        note("decline", one, span - length, span - 1, final)
    for one in take(0.02):
        length = int(rng.integers(6, 40))
        expected[one, span - length :] = 0
        note("silent", one, span - length, span - 1, 0)
    for one in take(0.04):
        expected[one, :] = 0
        note("never_used", one, 0, span - 1, 0)

    # a cancellation is often seen coming: usage fades before the notice
    for one in np.nonzero(owned["reason"].to_numpy() == "cancelled")[0]:
        if rng.random() < 0.6 and with_signs:
            notice = monday_of(pd.Timestamp(owned.at[one, "notice"]).date())
            at = (notice - weeks[0]).days // 7
            low = max(0, at - 16)
            if at > 4:
                fade = np.linspace(1, 0.3, at - low)[: max(0, span - low)]  # a notice may lie past the newest week
                expected[one, low : low + len(fade)] *= fade
                expected[one, at:] *= 0.3

    outage = span - 31
    expected[:, outage] *= 0.55
    release, boosted = span - 58, 0
    expected[owned["application"].to_numpy() == boosted, release : release + 2] *= 1.7
    portfolio.truth["events"] = events
    portfolio.truth["common_moves"] = [
        {"kind": "outage", "week": weeks[outage].isoformat(), "application": None, "factor": 0.55},
        {"kind": "release", "week": weeks[release].isoformat(), "application": _APPLICATIONS[0][0], "factor": 1.7},
    ]
    portfolio.truth["late_week"] = weeks[span - 12].isoformat()


def _portfolio(seed: int, count: int, as_of: date, with_signs: bool = True) -> _Portfolio:
    rng = np.random.default_rng([seed, count])
    running = monday_of(as_of)
    weeks = [running - (WEEKS - i) * WEEK for i in range(WEEKS + 1)]
    accounts = _accounts(rng, count)
    owned = _owned(rng, accounts, weeks)
    accounts["account_notice"] = pd.NaT
    _ends(rng, accounts, owned, weeks, with_signs)

    busiest = np.array([a[6] for a in _APPLICATIONS])[owned["application"]]
    expected = np.stack([owned["mean"].to_numpy() * _season(week, busiest) for week in weeks], axis=1)
    drift = rng.normal(0.03, 0.10, len(owned))
    expected *= np.exp(np.linspace(-1, 0, len(weeks))[None, :] * drift[:, None])
    ramp_weeks = 8
    start_week = ((owned["start"].to_numpy().astype("datetime64[D]") - np.datetime64(weeks[0])).astype(int)) // 7
    age = np.arange(len(weeks))[None, :] - start_week[:, None]
    expected *= np.clip((age + 2) / ramp_weeks, 0.2, 1)
    portfolio = _Portfolio(accounts, owned, weeks, expected, {})
    _plant(rng, portfolio, with_signs)
    _plant_people(portfolio, seed)
    return portfolio


def _plant_people(portfolio: _Portfolio, seed: int) -> None:
    """Sizes, seats, and champions who left: from a stream of its own, so that all else is drawn as without them.

    A champion is the main user of the most used application of an account. Others take over what they did, so that only
    the person is missed.
    """
    accounts, owned, weeks = portfolio.accounts, portfolio.owned, portfolio.weeks
    rng = np.random.default_rng([seed, len(accounts), 26])
    population = np.round(accounts["size"].to_numpy() * 420 * rng.lognormal(0, 0.5, len(accounts)), -1) + 10
    accounts["population"] = pd.Series(population).where(rng.random(len(accounts)) >= 0.03).astype("Int64")

    owned["seats"] = owned["users"] + np.arange(len(owned)) % 4
    overused = rng.permutation(np.nonzero(owned["users"].to_numpy() >= 4)[0])[: max(2, len(owned) // 30)]
    owned.loc[overused, "seats"] = np.maximum(owned["users"].to_numpy()[overused] // 2, 1)

    def named(one: int) -> dict[str, Any]:
        account, application = int(owned.at[one, "account"]), int(owned.at[one, "application"])
        return {"account_id": accounts.at[account, "account_id"], "application": _APPLICATIONS[application][0]}

    portfolio.truth["seats_overused"] = [named(int(one)) for one in overused]
    portfolio.truth["champions_left"] = []
    end = np.minimum(
        owned["end"].to_numpy().astype("datetime64[D]"),
        accounts["end"].to_numpy().astype("datetime64[D]")[owned["account"]],
    )
    planted = {(event["account_id"], event["application"]) for event in portfolio.truth["events"]}
    steady = owned[
        (end == _FOREVER)
        & (owned["start"].to_numpy().astype("datetime64[D]") < np.datetime64(weeks[-40]))
        & (owned["mean"] >= 20)
        & owned["users"].between(3, 8)
    ]
    largest = steady.sort_values("mean").groupby("account").tail(1).index.to_numpy()
    quiet = [int(one) for one in largest if tuple(named(int(one)).values()) not in planted]
    for one in rng.permutation(quiet)[: max(2, len(accounts) // 40)]:
        account = int(owned.at[one, "account"])
        who = int(owned.at[one, "offset"]) % int(accounts.at[account, "users"])
        first = len(weeks) - 1 - int(rng.integers(4, 6))
        portfolio.left.append((account, who, first))
        portfolio.truth["champions_left"].append(
            named(int(one))
            | {
                "user_id": named(int(one))["account_id"] + f"-U{who + 1:03d}",
                "first_week": weeks[first].isoformat(),
            }
        )


def _subscription_days(portfolio: _Portfolio) -> tuple[np.ndarray[Any, Any], ...]:
    """First and last subscribed day of each application, and the second subscription period of those that came back."""
    owned, accounts = portfolio.owned, portfolio.accounts
    whole_end = accounts["end"].to_numpy().astype("datetime64[D]")[owned["account"]]
    start = owned["start"].to_numpy().astype("datetime64[D]")
    end = np.minimum(owned["end"].to_numpy().astype("datetime64[D]"), whole_end)
    back = owned["back"].to_numpy().astype("datetime64[D]")
    return start, end, back, whole_end


def _week_rows(rng: np.random.Generator, portfolio: _Portfolio, number: int, as_of: date) -> pd.DataFrame:
    """The events of one week: a row per user and sitting, with clicks and records."""
    owned, accounts, week = portfolio.owned, portfolio.accounts, portfolio.weeks[number]
    start, end, back, whole_end = _subscription_days(portfolio)
    mean = portfolio.expected[:, number]
    shape = owned["dispersion"].to_numpy()
    clicks = rng.poisson(rng.gamma(shape, np.maximum(mean, 1e-9) / shape))
    sittings = np.minimum(clicks, 1 + rng.poisson(1.1 * owned["users"].to_numpy()))
    row_owned = np.repeat(np.arange(len(owned)), sittings)
    if len(row_owned) == 0:
        return pd.DataFrame()
    # each sitting has one click at least; the others are spread at random
    weight = rng.gamma(0.8, 1.0, len(row_owned)) + 1e-9
    total = np.bincount(row_owned, weight, len(owned))
    row_clicks = 1 + np.floor((clicks - sittings)[row_owned] * weight / total[row_owned]).astype(int)
    day_weight = _day_weights(week)
    weekday = rng.choice(7, len(row_owned), p=day_weight / day_weight.sum())
    day = np.datetime64(week) + weekday.astype("timedelta64[D]")
    second = np.clip(rng.normal(11.5 * 3600, 2.6 * 3600, len(row_owned)), 5 * 3600, 23 * 3600).astype(int)
    user = (owned["users"].to_numpy()[row_owned] * rng.random(len(row_owned)) ** 1.7).astype(int)
    users = accounts["users"].to_numpy()[owned["account"]][row_owned]
    user = (user + owned["offset"].to_numpy()[row_owned]) % users
    for account, who, first in portfolio.left:
        if number >= first:
            has_left = (owned["account"].to_numpy()[row_owned] == account) & (user == who)
            user = np.where(has_left, (user + 1) % users, user)

    inside = (day >= start[row_owned]) & (day <= end[row_owned])
    again = ~np.isnat(back[row_owned]) & (day >= back[row_owned]) & (day <= whole_end[row_owned])
    # a few look something up after the end: usage outside the subscription, which makes nobody active
    afterwards = (day > end[row_owned]) & (day <= end[row_owned] + np.timedelta64(45, "D"))
    peeking = afterwards & (row_owned % 7 == 0) & (rng.random(len(row_owned)) < 0.08)
    keep = (inside | again | peeking) & (day < np.datetime64(as_of))
    row_owned, row_clicks = row_owned[keep], row_clicks[keep]
    rate = np.array([a[5] for a in _APPLICATIONS])[owned["application"].to_numpy()[row_owned]]
    account = owned["account"].to_numpy()[row_owned]
    ids = accounts["account_id"].to_numpy()[account]
    rows = pd.DataFrame(
        {
            "account_id": ids,
            "application": np.array([a[0] for a in _APPLICATIONS])[owned["application"].to_numpy()[row_owned]],
            "user_id": ids + np.char.mod("-U%03d", user[keep] + 1).astype(object),
            "event_time": (day[keep].astype("datetime64[s]") + second[keep].astype("timedelta64[s]")).astype(
                "datetime64[ms]"
            ),
            "clicks": row_clicks,
            "records_created": rng.binomial(row_clicks, rate),
        }
    )
    return rows.sort_values(["account_id", "application", "event_time", "user_id"], ignore_index=True)


def _subscriptions(rng: np.random.Generator, portfolio: _Portfolio, as_of: date) -> pd.DataFrame:
    """Subscription rows: one an account, one or two an application; what lies after `as_of` is not known yet."""
    accounts, owned = portfolio.accounts, portfolio.owned
    today = np.datetime64(as_of)
    none = np.datetime64("NaT", "D")
    rows: list[dict[str, Any]] = []

    def add(
        account: int, application: str | None, start: Any, notice: Any, end: Any, reason: str, value: Any, seats: Any
    ) -> None:
        told = not np.isnat(notice) and notice <= today
        ended = end != _FOREVER and (end <= today or told)
        anniversary = start + np.timedelta64(365, "D") * (int((today - start).astype(int)) // 365 + 1)
        rows.append(
            {
                "account_id": accounts.at[account, "account_id"],
                "application": application,
                "start_date": start,
                "notice_date": notice if told else none,
                "end_date": end if ended else none,
                "end_reason": reason if ended else None,
                "renewal_date": none if ended else anniversary,
                "seats": seats,
                "annual_value": value,
            }
        )

    start, _, back, whole_end = _subscription_days(portfolio)
    account_start = accounts["start"].to_numpy().astype("datetime64[D]")
    notices = accounts["account_notice"].to_numpy().astype("datetime64[D]")
    for a in np.nonzero(accounts["has_subscription"].to_numpy())[0]:
        end = accounts["end"].to_numpy().astype("datetime64[D]")[a]
        add(int(a), None, account_start[a], notices[a], end, "cancelled", None, None)
    price = np.round(owned["mean"].to_numpy() ** 0.55 * rng.uniform(350, 700, len(owned)) / 100 + 9) * 100
    own_end = owned["end"].to_numpy().astype("datetime64[D]")
    own_notice = owned["notice"].to_numpy().astype("datetime64[D]")
    for i, one in enumerate(owned.itertuples()):
        a = int(one.account)  # type: ignore[arg-type]
        if not accounts.at[a, "has_subscription"]:
            continue
        key, value, seats = _APPLICATIONS[int(one.application)][0], float(price[i]), int(one.seats)  # type: ignore[arg-type]
        if own_end[i] != _FOREVER and own_end[i] > whole_end[i]:
            own_end[i] = _FOREVER  # the account's end caps it; the row itself stays open, as it does in real lists
        add(a, key, start[i], own_notice[i], own_end[i], str(one.reason), value, seats)
        if not np.isnat(back[i]) and own_end[i] != _FOREVER:
            add(a, key, back[i], none, _FOREVER, "", value, seats)
    return pd.DataFrame(rows)


def _with_renewals(
    rng: np.random.Generator, subscriptions: pd.DataFrame, as_of: date
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Subscription rows with those before renewals at another value, and each such renewal for the truth.

    Days in force and what is worth today stay as they are: only what was paid in earlier years is added. An application
    that came back has a row for each time, and none in between.
    """
    today, year = pd.Timestamp(as_of), pd.Timedelta(days=365)
    whole = subscriptions[subscriptions["application"].isna()].set_index("account_id")["end_date"]
    times = subscriptions.groupby(["account_id", "application"])["start_date"].transform("size")
    rows: list[dict[str, Any]] = []
    renewals: list[dict[str, Any]] = []
    for row, number in zip(subscriptions.to_dict("records"), times, strict=True):
        rows.append(row)
        if number != 1:
            continue
        until = min(
            day
            for day in (row["notice_date"], row["end_date"], whole.get(row["account_id"]), today)
            if day is not None and not pd.isna(day)
        )
        days = pd.date_range(row["start_date"] + year, until - pd.Timedelta(days=1), freq=year)
        # the newest first: a row is as told today, and what was before it follows from that
        for day in reversed(days):
            value, seats = _before_renewal(rng, rows[-1]["annual_value"], rows[-1]["seats"])
            if value == rows[-1]["annual_value"]:
                continue
            named = {name: rows[-1][name] for name in ("account_id", "application")}
            renewals.append(
                {
                    **named,
                    "day": day.date().isoformat(),
                    "value_before": value,
                    "value": rows[-1]["annual_value"],
                    "seats_before": seats,
                    "seats": rows[-1]["seats"],
                }
            )
            ended = {"end_date": day - pd.Timedelta(days=1), "end_reason": "renewed", "annual_value": value}
            earlier = rows[-1] | ended | {"notice_date": pd.NaT, "renewal_date": pd.NaT, "seats": seats}
            rows[-1] = rows[-1] | {"start_date": day}
            rows.append(earlier)
    return pd.DataFrame(rows, columns=subscriptions.columns), renewals


def _before_renewal(rng: np.random.Generator, value: float, seats: int) -> tuple[float, int]:
    """Value and seats before a renewal: of ten, two pay more since, one less, and half of those for other seats."""
    kind, grown, shrunk, of_seats = rng.random(), rng.uniform(1.03, 1.3), rng.uniform(0.7, 0.97), rng.random() < 0.5
    factor = grown if kind < 0.2 else shrunk if kind < 0.3 else 1.0
    before = max(100.0, float(np.round(value / factor, -2)))
    return before, max(1, round(seats / factor)) if of_seats and before != value else seats


def _contacts(rng: np.random.Generator, accounts: pd.DataFrame) -> pd.DataFrame:
    account = np.repeat(np.arange(len(accounts)), accounts["users"])
    number = np.concatenate([np.arange(1, n + 1) for n in accounts["users"]])
    ids = accounts["account_id"].to_numpy()[account]
    given, family = rng.choice(_GIVEN, len(account)), rng.choice(_FAMILY, len(account))
    return pd.DataFrame(
        {
            "user_id": ids + np.char.mod("-U%03d", number).astype(object),
            "account_id": ids,
            "name": [f"{g} {f}" for g, f in zip(given, family, strict=True)],
            "email": [f"{g}.{f}@{i}.example".lower() for g, f, i in zip(given, family, ids, strict=True)],
            "phone": [f"555-01{n:02d}" for n in rng.integers(0, 100, len(account))],
            "role": rng.choice(_ROLES, len(account)),
            "is_primary": number == 1,
        }
    )


def _write(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, compression="zstd")


def write_demo_lake(
    out: Path,
    as_of: date,
    *,
    accounts: int = 400,
    seed: int = 7,
    with_signs: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Writes `lake/`, `truth/` and `sources.yaml` below `out`: 156 complete weeks before `as_of`, and the running one.

    `accounts` is any positive number; 400 take about ten seconds. Without signs, usage says nothing of a coming end.
    What lay in the three places before is replaced file by file.
    """
    portfolio = _portfolio(seed, accounts, as_of, with_signs)
    lake = out / "lake"
    late_week = date.fromisoformat(portfolio.truth["late_week"])
    carried = pd.DataFrame()
    rows_written = 0
    for number, week in enumerate(portfolio.weeks):
        rows = _week_rows(np.random.default_rng([seed, accounts, number]), portfolio, number, as_of)
        if len(carried):
            rows, carried = pd.concat([carried, rows], ignore_index=True), pd.DataFrame()
        if week == late_week:
            weekend = rows["event_time"] >= pd.Timestamp(week + timedelta(days=5))
            rows, carried = rows[~weekend].reset_index(drop=True), rows[weekend]
            portfolio.truth["late_rows"] = len(carried)
        if len(rows):
            _write(rows, lake / "usage" / str(folder_of(week, "iso")) / "part-0.parquet")
        rows_written += len(rows)
        if number % 26 == 25:
            progress(f"{number + 1} of {len(portfolio.weeks)} weeks, {rows_written:,} rows")
    rng = np.random.default_rng([seed, accounts, 9999])
    columns = ["account_id", "account_name", "segment", "region", "country", "state", "owner", "population"]
    portfolio.accounts[columns].to_csv(_made(lake / "accounts.csv"), index=False)
    # numbers of their own, so that everything else is drawn as without them
    changes = np.random.default_rng([seed, accounts, _RENEWALS])
    subscriptions, renewals = _with_renewals(changes, _subscriptions(rng, portfolio, as_of), as_of)
    subscriptions.to_csv(_made(lake / "subscriptions.csv"), index=False, date_format="%Y-%m-%d")
    _write(_contacts(rng, portfolio.accounts), lake / "contacts.parquet")
    pd.DataFrame(
        [(a[0], a[1], a[2]) for a in _APPLICATIONS], columns=["application", "application_name", "application_type"]
    ).to_csv(_made(lake / "applications.csv"), index=False)

    _known_causes(portfolio).to_csv(_made(lake / "known_causes.csv"), index=False)

    ids = portfolio.accounts["account_id"]
    portfolio.truth |= {
        "seed": seed,
        "with_signs": with_signs,
        "as_of": as_of.isoformat(),
        "accounts": accounts,
        "rows": rows_written,
        "renewals": renewals,
        "ended_accounts": ids[
            portfolio.accounts["end"].to_numpy().astype("datetime64[D]") <= np.datetime64(as_of)
        ].tolist(),
        "without_subscription": ids[~portfolio.accounts["has_subscription"]].tolist(),
        "onboarding_wave": ids[portfolio.accounts["in_wave"]].tolist(),
        "returned": [
            [ids[int(p.account)], _APPLICATIONS[int(p.application)][0]]  # type: ignore[arg-type]
            for p in portfolio.owned[portfolio.owned["back"].notna()].itertuples()
        ],
    }
    _made(out / "truth" / "truth.json").write_text(json.dumps(portfolio.truth, indent=1), encoding="utf-8")
    pilots = ", ".join(portfolio.accounts["account_id"].iloc[:20:6])
    text = _SOURCES.format(as_of=as_of.isoformat(), pilots=pilots)
    (out / "sources.yaml").write_text(text, encoding="utf-8")


def _known_causes(portfolio: _Portfolio) -> pd.DataFrame:
    """What people would have written down: the outage, and one of the latest drops."""
    outage = next(m for m in portfolio.truth["common_moves"] if m["kind"] == "outage")
    monday = date.fromisoformat(outage["week"])
    rows = [(None, None, monday, monday + timedelta(days=6), "the service was down for two days")]
    recent = portfolio.weeks[-14].isoformat()
    for drop in [e for e in portfolio.truth["events"] if e["kind"] == "drop" and e["last_week"] >= recent][:1]:
        last = date.fromisoformat(drop["last_week"]) + timedelta(days=6)
        first = date.fromisoformat(drop["first_week"])
        rows.append((drop["account_id"], drop["application"], first, last, "offices closed for a move"))
    return pd.DataFrame(rows, columns=["account_id", "application", "first_day", "last_day", "cause"])


def add_week(out: Path, *, late: bool = False, broken: bool = False, changed: bool = False) -> list[str]:
    """Lets a week go by in a demo lake: the running week is completed, the next one begins, `as_of` moves on.

    `late`: the week-end of the completed week arrives in the folder of the next one. `broken`: a second file of the
    completed week was cut off on its way. `changed`: the week four weeks before is delivered again, with fewer rows.
    Returns what was done, in words. Raises FileNotFoundError where there is no demo lake.
    """
    truth = json.loads((out / "truth" / "truth.json").read_text(encoding="utf-8"))
    made, accounts, seed = date.fromisoformat(truth["as_of"]), truth["accounts"], truth["seed"]
    config = out / "sources.yaml"
    text = config.read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("as_of: ")]
    before = date.fromisoformat(line.removeprefix("as_of: "))
    as_of = before + WEEK
    portfolio = _portfolio(seed, accounts, made, truth["with_signs"])
    while portfolio.weeks[-1] < monday_of(as_of):
        # a week as that of the year before
        portfolio.weeks.append(portfolio.weeks[-1] + WEEK)
        portfolio.expected = np.hstack([portfolio.expected, portfolio.expected[:, [-52]]])

    def rows_of(number: int) -> pd.DataFrame:
        return _week_rows(np.random.default_rng([seed, accounts, number]), portfolio, number, as_of)

    def file_of(week: date, name: str = "part-0.parquet") -> Path:
        return out / "lake" / "usage" / str(folder_of(week, "iso")) / name

    running, ended = portfolio.weeks[-1], portfolio.weeks[-2]
    rows, next_rows = rows_of(len(portfolio.weeks) - 2), rows_of(len(portfolio.weeks) - 1)
    done = [f"the week of {ended} is complete, that of {running} has begun, as_of is {as_of}"]
    if late:
        weekend = rows["event_time"] >= pd.Timestamp(ended + timedelta(days=5))
        rows, next_rows = rows[~weekend], pd.concat([rows[weekend], next_rows])
        done.append(f"late: {weekend.sum()} rows of its week-end lie in the folder of the next week")
    if broken:
        _write(rows[len(rows) // 2 :], file_of(ended, "part-1.parquet"))
        whole = file_of(ended, "part-1.parquet").read_bytes()
        file_of(ended, "part-1.parquet").write_bytes(whole[: len(whole) // 2])
        rows = rows[: len(rows) // 2]
        done.append(f"broken: {file_of(ended, 'part-1.parquet')} is cut off in the middle")
    _write(rows.reset_index(drop=True), file_of(ended))
    if len(next_rows):
        _write(next_rows.reset_index(drop=True), file_of(running))
    if changed:
        again = ended - 4 * WEEK
        frame = pd.read_parquet(file_of(again))
        _write(frame[frame.index % 10 != 0].reset_index(drop=True), file_of(again))
        done.append(f"changed: the week of {again} was delivered again, with a tenth of its rows less")
    config.write_text(text.replace(line, f"as_of: {as_of}"), encoding="utf-8")
    return done


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


_SOURCES = """\
# The demo lake, written by `usage-pipeline demo-lake`. examples/oulad.yaml shows a lake in somebody else's shape.
name: Demo
home: home
as_of: {as_of}
timezone: America/Denver
schedule:
  poll_interval_seconds: 30
# entities of their own on the KPI sheet
groups:
  accounts:
    Pilot customers: [{pilots}]
  applications:
    Field work: [inspections, work_orders, signs, pavement]
    Online services: [citizen_requests, payments, utility_billing]
sources:
  usage:
    path: lake/usage
    partitioned: true
    columns:
      account_id: account_id
      application: application
      user_id: user_id
      event_time: event_time
      clicks: clicks
      records_created: records_created
  accounts:
    path: lake/accounts.csv
    format: csv
    columns:
      account_id: account_id
      account_name: account_name
      segment: segment
      region: region
      country: country
      state: state
      owner: owner
      size: population
  subscriptions:
    path: lake/subscriptions.csv
    format: csv
    columns:
      account_id: account_id
      application: application
      start_date: start_date
      notice_date: notice_date
      end_date: end_date
      end_reason: end_reason
      renewal_date: renewal_date
      seats: seats
      annual_value: annual_value
  contacts:
    path: lake/contacts.parquet
    columns:
      user_id: user_id
      account_id: account_id
      name: name
      email: email
      phone: phone
      role: role
      is_primary: is_primary
  applications:
    path: lake/applications.csv
    format: csv
    columns:
      application: application
      application_name: application_name
      application_type: application_type
  known_causes:
    path: lake/known_causes.csv
    format: csv
    columns:
      account_id: account_id
      application: application
      first_day: first_day
      last_day: last_day
      cause: cause
"""
