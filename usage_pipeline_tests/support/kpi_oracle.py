"""The KPI sheet once more, from raw rows with sets and loops: what `mart.kpi_report` must hold.

Nothing of the product's tables or SQL is used. A world is what lies in a lake; the sheet is a value for each
(KPI, entity type, entity key, period, reference day).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median
from typing import Any

import pandas as pd

from usage_pipeline.config.settings import ActivitySettings, GroupSettings
from usage_pipeline_tests.support.histories import OPEN, merged

# of a subscription about the whole account: no application
Pair = tuple[str, str | None]
Key = tuple[str, str, str, str, date]
WEEK = timedelta(days=7)
PERIODS = {"3 months": 3, "6 months": 6, "12 months": 12, "year to date": 0}
SUMS = {
    "Clicks": "clicks",
    "Records created": "records",
    "New": "new",
    "Reactivated": "reactivated",
    "Lapsed": "lapsed",
    "Churned": "churned",
}
STOCKS = {
    "Customers": "accounts",
    "ARR": "annual_value",
    "Seats": "seats",
    "Never adopted": "state never adopted",
    "Low usage": "state low",
    "Inactive": "state inactive",
    "At risk": "at risk",
}
DISTINCT = {
    "Active users": "users",
    "Active accounts": "active",
    "Active application subscriptions": "account_applications",
}
RATIOS = {
    "Clicks per active user a month": ("clicks", "users"),
    "Users per account a month": ("users", "active"),
    "Applications used per account a month": ("account_applications", "active"),
    "Seat utilization a month": ("seats_used", "seats"),
}
PERCENT = {"Seat utilization a month"}


@dataclass
class World:
    """What lies in a lake: rows of use (a row: account_id, application, user_id, day, clicks, records_created)."""

    rows: pd.DataFrame
    subscriptions: list[dict[str, Any]]
    accounts: pd.DataFrame
    applications: pd.DataFrame
    weeks: dict[date, bool]
    as_of: date
    rules: ActivitySettings = field(default_factory=ActivitySettings)
    groups: GroupSettings = field(default_factory=GroupSettings)
    risks: dict[date, set[Pair]] = field(default_factory=dict)
    has_days: bool = True


@dataclass
class Step:
    """A week or month: its first and last day, and of an entity in it, sums and sets."""

    first: date
    last: date
    is_complete: bool
    year_ago: date | None
    state_week: date | None = None


@dataclass(frozen=True)
class SubscriptionPeriod:
    start: date
    end: date
    reason: str | None


def month_after(day: date, months: int = 1) -> date:
    number = 12 * day.year + day.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


def steps_of(world: World) -> dict[str, dict[date, Step]]:
    """Complete weeks and months, and the running month, by their first day."""
    complete = [week for week, is_complete in sorted(world.weeks.items()) if is_complete]
    weeks = {}
    for week in complete:
        year, number, _ = week.isocalendar()
        weeks[week] = Step(
            week, week + WEEK - timedelta(1), True, date.fromisocalendar(year - 1, min(number, 52), 1), week
        )
    months: dict[date, Step] = {}
    month = month_after(min(world.weeks), 0)
    while world.has_days and month <= world.as_of:
        end = month_after(month) - timedelta(1)
        touched = [month + timedelta(d) for d in range((end - month).days + 1)]
        mondays = {day - timedelta(day.weekday()) for day in touched}
        whole = all(world.weeks.get(monday, False) for monday in mondays)
        runs = not world.weeks.get(max(mondays), False) and max(mondays) + WEEK > world.as_of
        if whole or (runs and month >= min(world.weeks)):
            last = min(end, world.as_of)
            inside = [week for week in complete if month <= week + timedelta(6) <= last]
            months[month] = Step(month, last, whole, month_after(month, -12), max(inside, default=None))
        month = month_after(month)
    return {"week": weeks, "month": months}


def periods_of(world: World) -> dict[Pair, list[SubscriptionPeriod]]:
    """Runs of subscribed days of each application of each account."""
    used = world.rows.groupby(["account_id", "application"])["day"].min().to_dict()
    of_account, of_account_application = defaultdict(list), defaultdict(list)
    for row in world.subscriptions:
        if row["application"] is None:
            of_account[row["account_id"]].append(row)
        else:
            of_account_application[row["account_id"], row["application"]].append(row)
    with_account_applications = {account for account, _ in of_account_application}
    gap, found = world.rules.renewal_gap_days, defaultdict(list)
    for (account, application), rows in of_account_application.items():
        for start, end, own in merged(rows, gap):
            if account not in of_account:
                found[account, application].append(SubscriptionPeriod(start, end, own["end_reason"]))
            for cap_start, cap_end, cap in merged(of_account[account], gap) if account in of_account else []:
                if start <= cap_end and end >= cap_start:
                    reason = cap["end_reason"] if cap_end < end else own["end_reason"]
                    found[account, application].append(
                        SubscriptionPeriod(max(start, cap_start), min(end, cap_end), reason)
                    )
    for (account, application), first in used.items():
        if account in with_account_applications:
            continue
        if account in of_account:
            for start, end, cap in merged(of_account[account], gap):
                if end >= first:
                    found[account, application].append(SubscriptionPeriod(max(start, first), end, cap["end_reason"]))
        else:
            found[account, application].append(SubscriptionPeriod(first, OPEN, None))
    return {
        account_application: sorted(subscription_periods, key=lambda s: s.start)
        for account_application, subscription_periods in found.items()
    }


def in_force(rows: list[dict[str, Any]], day: date) -> list[dict[str, Any]]:
    """The rows that cover a day; where none does, those that cover the last day before it that any covers."""
    covering = [row for row in rows if row["start_date"] <= day <= (row["end_date"] or OPEN)]
    ends = [row["end_date"] for row in rows if row["end_date"] and row["start_date"] <= row["end_date"] < day]
    return covering or (in_force(rows, max(ends)) if ends else [])


def told_on(rows: list[dict[str, Any]], day: date, period: SubscriptionPeriod, what: str) -> float | None:
    """Value or seats of an application on a day of a period: of rows that overlap those of the one that began last.

    An empty cell changes nothing: then what was known before in the period holds, or what is known first after the day.
    """

    def began_last(row: dict[str, Any]) -> tuple[Any, ...]:
        empty = (-1 if row[name] is None else row[name] for name in ("annual_value", "seats"))
        return (row["start_date"], row["end_date"] or OPEN, *empty)

    def said(on: date) -> float | None:
        found = in_force(rows, on)
        return max(found, key=began_last)[what] if found else None

    ends = {row["end_date"] + timedelta(1) for row in rows if row["end_date"]}
    turns = sorted(
        turn
        for turn in {row["start_date"] for row in rows} | ends | {period.start}
        if period.start <= turn <= period.end
    )
    looked_at = [day, *(turn for turn in reversed(turns) if turn <= day), *(turn for turn in turns if turn > day)]
    return next((value for turn in looked_at if (value := said(turn)) is not None), None)


def account_rows_on(rows: list[dict[str, Any]], day: date, gap: int) -> list[dict[str, Any]]:
    """Subscriptions about the whole account on a day; a gap too short to end it leaves those before in force."""
    coming = [row["start_date"] for row in rows if row["start_date"] > day]
    found = in_force(rows, day)
    if any((row["end_date"] or OPEN) >= day for row in found):
        return found
    is_short = found and coming and (min(coming) - found[0]["end_date"]).days - 1 < gap
    # of those that cover the last day of all
    return found if is_short else []


def states_of(
    subscription_periods: list[SubscriptionPeriod],
    clicks: dict[date, int],
    days: dict[date, list[date]],
    weeks: dict[date, bool],
    rules: ActivitySettings,
) -> dict[date, str]:
    """The usage state of every full complete subscribed week; of any other week only that it was used is known."""
    found: dict[date, str] = {}
    full: list[int] = []
    used_periods: set[int] = set()
    silent = 0
    full_of_period: dict[int, int] = defaultdict(int)
    for week, is_complete in sorted(weeks.items()):
        sunday = week + timedelta(6)
        inside = [(n, s) for n, s in enumerate(subscription_periods) if s.start <= sunday and s.end >= week]
        if not inside:
            continue
        number, subscription_period = inside[-1]
        came = clicks.get(week, 0)
        is_used = (
            came > 0 and max(days[week]) >= subscription_period.start and min(days[week]) <= subscription_period.end
        )
        is_full = is_complete and subscription_period.start <= week and subscription_period.end >= sunday
        silent = 0 if is_used else silent + is_full
        used_periods |= {number} if is_used else set()
        if not is_full:
            continue
        full.append(came)
        full_of_period[number] += 1
        recent, usual = full[-rules.recent_weeks :], full[: -rules.recent_weeks][-rules.usual_weeks :]
        if full_of_period[number] <= rules.new_weeks:
            found[week] = "new"
        elif number not in used_periods:
            found[week] = "never adopted"
        elif silent >= rules.inactive_weeks:
            found[week] = "inactive"
        elif (
            usual
            and median(usual) >= rules.low_floor_clicks
            and sum(recent) / len(recent) < rules.low_share * median(usual)
        ):
            found[week] = "low"
        else:
            found[week] = "active"
    return found


def changes_of(subscription_periods: list[SubscriptionPeriod], used: set[date], steps: list[Step]) -> dict[date, str]:
    """What happened to an account x application in each complete step but the first: new, back, or lost and why."""
    found, has_used = {}, False
    for before, now in zip([None, *steps], steps, strict=False):
        if now.first in used:
            change = "new" if not has_used else "kept" if before and before.first in used else "reactivated"
            has_used = True
        elif before and before.first in used:
            begun = [s for s in subscription_periods if s.start <= now.last]
            last = max(begun, key=lambda s: s.end)
            why = "expired" if last.reason == "completed" else "churned"
            change = "lapsed" if last.end >= now.last else why
        else:
            continue
        if before:
            found[now.first] = change
    return found


def cells_of(world: World, calendar: str, steps: dict[date, Step]) -> dict[tuple[Pair, date], dict[str, Any]]:
    """All there is to say of each account x application in each step in which there is anything to say."""
    subscription_periods = periods_of(world)
    rows = world.rows.assign(week=[day - timedelta(day.weekday()) for day in world.rows["day"]])
    rows = rows.assign(step=rows["week"] if calendar == "week" else [month_after(day, 0) for day in rows["day"]])
    cells: dict[tuple[Pair, date], dict[str, Any]] = defaultdict(dict)
    sums = rows.groupby(["account_id", "application", "step"])[["clicks", "records_created"]].sum()
    for (account, application, step), clicks, records in sums.itertuples(name=None):
        if step in steps:
            cells[(account, application), step] |= {"clicks": clicks, "records": records}
    # a person's clicks of the step are looked at together
    by_user = rows.groupby(["account_id", "application", "step", "user_id"])["clicks"].sum()
    users: dict[tuple[Pair, date], set[str]] = defaultdict(set)
    for (account, application, step, user), clicks in by_user.items():
        if clicks > 0:
            users[(account, application), step].add(user)
    by_week = rows.groupby(["account_id", "application", "week"])["clicks"].sum()
    weekly: dict[Pair, dict[date, int]] = defaultdict(dict)
    for (account, application, week), clicks in by_week.items():
        weekly[account, application][week] = clicks
    days: dict[Pair, dict[date, list[date]]] = defaultdict(dict)
    for (account, application, week), of_week in rows.groupby(["account_id", "application", "week"])["day"]:
        days[account, application][week] = list(of_week)
    complete_steps = [step for step in steps.values() if step.is_complete]
    told: dict[Pair, list[dict[str, Any]]] = defaultdict(list)
    for row in world.subscriptions:
        if row["end_date"] is None or row["start_date"] <= row["end_date"]:
            told[row["account_id"], row["application"]].append(row)
    for account_application in set(subscription_periods) | {account_application for account_application, _ in cells}:
        states = states_of(
            subscription_periods.get(account_application, []),
            weekly[account_application],
            days[account_application],
            world.weeks,
            world.rules,
        )
        used = set()
        for first, step in steps.items():
            inside = [
                s
                for s in subscription_periods.get(account_application, [])
                if s.start <= step.last and s.end >= step.first
            ]
            if (account_application, first) in cells and cells[account_application, first]["clicks"] > 0:
                whole = month_after(first) - timedelta(1) if calendar == "month" else step.last
                if any(s.start <= whole and s.end >= first for s in subscription_periods.get(account_application, [])):
                    used.add(first)
            if inside:
                running = [s for s in inside if s.start <= step.last <= s.end]
                cells[account_application, first]["subscription_period"] = running[-1] if running else None
                if running:
                    cells[account_application, first] |= {
                        what: told_on(told[account_application], step.last, running[-1], what)
                        for what in ("annual_value", "seats")
                    }
                if running and step.state_week is not None:
                    cells[account_application, first]["state"] = states.get(step.state_week)
        for first, change in changes_of(
            subscription_periods.get(account_application, []), used, complete_steps
        ).items():
            cells[account_application, first]["change"] = change
    for (account, application), rows_of_account in told.items():
        for first, step in steps.items() if application is None else ():
            if found := account_rows_on(rows_of_account, step.last, world.rules.renewal_gap_days):
                cells[(account, None), first]["account rows"] = found
    for first, step in steps.items():
        for account_application in world.risks.get(step.state_week, set()) if step.state_week else ():
            cells[account_application, first]["at risk"] = True
    for key in cells:
        cells[key]["user_ids"] = users.get(key, set())
    for ((account, application), first), cell in cells.items():
        if application is None:
            # those who use what has no seats of its own
            cell["seat takers"] = {
                user
                for (account_application, when), other in cells.items()
                if account_application[0] == account
                and when == first
                and other.get("subscription_period")
                and other["seats"] is None
                for user in other["user_ids"]
            }
    return cells


def entities_of(world: World) -> Iterator[tuple[str, str, Callable[[Pair], bool]]]:
    accounts = world.accounts.set_index("account_id")
    types: dict[str, str] = world.applications.set_index("application")["application_type"].to_dict()
    yield "all", "all", lambda _: True
    for kind, column in (("segment", "segment"), ("region", "region"), ("CSM", "owner")):
        of = accounts[column].to_dict()
        for value in sorted(set(of.values())):
            yield kind, value, lambda account_application, of=of, value=value: of[account_application[0]] == value
    for account in accounts.index:
        yield "account", account, lambda account_application, account=account: account_application[0] == account
    for application in types:
        yield (
            "application",
            application,
            lambda account_application, application=application: account_application[1] == application,
        )
    for kind in sorted(set(types.values())):
        yield "application type", kind, lambda account_application, kind=kind: types.get(account_application[1]) == kind
    for place, (word, groups) in enumerate(
        (("accounts", world.groups.accounts), ("applications", world.groups.applications))
    ):
        for name, members in groups.items():
            yield (
                f"group of {word}",
                name,
                lambda account_application, place=place, members=members: account_application[place] in members,
            )


def months_of(
    world: World,
    cells: dict[tuple[Pair, date], dict[str, Any]],
    steps: dict[date, Step],
    is_member: Callable[[Pair], bool],
) -> dict[date, dict[str, Any]]:
    """Sums and sets of an entity in each step."""
    found: dict[date, dict[str, Any]] = {
        first: defaultdict(float)
        | {
            "sets": {"users": set(), "active": set(), "account_applications": set()},
            "owners": set(),
            "is_there": False,
            "priced": 0,
            "seated": 0,
            "owned": 0,
        }
        for first in steps
    }
    for (account_application, first), cell in cells.items():
        if not is_member(account_application):
            continue
        step = found[first]
        step["is_there"] = True
        step["clicks"] += cell.get("clicks", 0)
        step["records"] += cell.get("records", 0)
        if cell.get("clicks", 0) > 0:
            step["sets"]["active"].add(account_application[0])
            step["sets"]["account_applications"].add(account_application)
        step["sets"]["users"] |= {(account_application[0], user) for user in cell["user_ids"]}
        # a state can be called new as well
        for word in (cell.get("change"), f"state {cell.get('state')}", "at risk" if cell.get("at risk") else "none"):
            step[word] += 1
        if cell.get("subscription_period") is not None:
            step["owners"].add(account_application[0])
            step["owned"] += 1
            if cell["annual_value"] is not None:
                step["priced"] += 1
                step["annual_value"] += cell["annual_value"]
            if cell["seats"] is not None:
                step["seated"] += 1
                step["seats"] += cell["seats"]
                step["seats_used"] += len(cell["user_ids"])
        if rows := cell.get("account rows"):
            step["owners"].add(account_application[0])
            step["owned"] += 1
            values = [row["annual_value"] for row in rows if row["annual_value"] is not None]
            seats = [row["seats"] for row in rows if row["seats"] is not None]
            step["priced"] += bool(values)
            step["annual_value"] += sum(values)
            step["seated"] += bool(seats)
            step["seats"] += sum(seats)
            step["seats_used"] += len(cell["seat takers"]) if seats else 0
    for step in found.values():
        step["accounts"] = len(step["owners"])
        for name, things in step["sets"].items():
            step[name] = len(things)
        if step["owned"] and not step["priced"]:
            step["annual_value"] = None
        if step["owned"] and not step["seated"]:
            step["seats"] = step["seats_used"] = None
    return found


def sheet_of(world: World) -> dict[Key, dict[str, float | None]]:
    """value, value_year_ago, value_before, active_accounts of every row of the sheet."""
    sheet: dict[Key, dict[str, float | None]] = {}
    for calendar, steps in steps_of(world).items():
        cells = cells_of(world, calendar, steps)
        complete = [step.first for step in steps.values() if step.is_complete]
        for entity_type, key, is_member in entities_of(world):
            if (calendar, entity_type) == ("week", "account"):
                continue
            of_entity = months_of(world, cells, steps, is_member)
            for period, window, before in _windows(calendar, steps):
                if not any(of_entity[first]["is_there"] for first in window):
                    continue
                reference = window[-1]
                for kpi, value in _figures(world, [of_entity[f] for f in window], window, complete, steps).items():
                    active = len(set().union(*(of_entity[f]["sets"]["active"] for f in window)))
                    sheet[kpi, entity_type, key, period, reference] = {
                        "value": value, "active_accounts": active, "before": before, "year_ago": steps[reference].year_ago,
                        "is_complete": steps[reference].is_complete,
                    }  # fmt: skip
    for (kpi, entity_type, key, period, _), row in sheet.items():
        for name, column in (("year_ago", "value_year_ago"), ("before", "value_before")):
            other = sheet.get((kpi, entity_type, key, period, row.pop(name)))  # type: ignore[arg-type]
            is_compared = other is not None and row["is_complete"] and other["is_complete"]
            row[column] = other["value"] if is_compared and other else None
    return sheet


def _windows(calendar: str, steps: dict[date, Step]) -> Iterator[tuple[str, list[date], date | None]]:
    """Each period that is given: its name, its steps, and the reference of the period before."""
    for first in steps:
        if calendar == "week":
            yield "week", [first], first - WEEK
            continue
        yield "month", [first], month_after(first, -1)
        for period, length in PERIODS.items():
            window = [month_after(first, -back) for back in range(length or first.month)][::-1]
            if all(month in steps and steps[month].is_complete for month in window):
                yield period, window, month_after(first, -length) if length else None


def _figures(
    world: World, window: list[dict[str, Any]], firsts: list[date], complete: list[date], steps: dict[date, Step]
) -> dict[str, float | None]:
    last, final = window[-1], steps[firsts[-1]]
    is_growth_known = all(first in complete[1:] for first in firsts)
    found: dict[str, float | None] = {}
    for kpi, name in SUMS.items():
        is_known = name in ("clicks", "records") or is_growth_known
        found[kpi] = sum(step[name] for step in window) if is_known else None
    for kpi, name in STOCKS.items():
        is_known = name in ("accounts", "annual_value", "seats") or final.state_week is not None
        if name == "at risk":
            is_known = final.state_week in world.risks
        found[kpi] = last[name] if is_known else None
    for kpi, name in DISTINCT.items():
        found[kpi] = len(set().union(*(step["sets"][name] for step in window)))
    for kpi, (above, below) in RATIOS.items():
        if any(step[above] is None or step[below] is None for step in window):
            found[kpi] = None
            continue
        counted = [step for step in window if step[below] > 0]
        times = 100 if kpi in PERCENT else 1
        found[kpi] = times * sum(s[above] for s in counted) / sum(s[below] for s in counted) if counted else None
    return found
