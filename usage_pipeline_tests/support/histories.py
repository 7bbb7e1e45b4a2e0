"""Random subscription-and-usage histories, taken through the activity tables; and a slow oracle that says what must come out.

A history is one account with one application: subscription rows (its own, sometimes of the whole account), and clicks by
week. `Fleet` makes any number of them at once; the oracle reads one at a time, in plain Python, a few lines a rule.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from usage_pipeline.activity.account_application_numbers import no_numbers, number
from usage_pipeline.activity.usage_states import replace_usage_states
from usage_pipeline.config.settings import Settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql

WEEK = timedelta(days=7)
FIRST_WEEK = date(2024, 1, 1)
OPEN = date(9999, 12, 31)


@dataclass
class Fleet:
    """Subscriptions, weekly clicks and weeks of many histories."""

    subscriptions: pd.DataFrame
    usage: pd.DataFrame
    weeks: pd.DataFrame
    as_of: date

    def shifted(self, weeks: int) -> "Fleet":
        """The same histories, so many weeks later."""
        by = pd.Timedelta(weeks=weeks)
        subscriptions, usage, spine = self.subscriptions.copy(), self.usage.copy(), self.weeks.copy()
        for column in ("start_date", "notice_date", "end_date", "renewal_date"):
            subscriptions[column] = subscriptions[column] + by
        for column in ("week_start", "first_day", "last_day"):
            usage[column] = usage[column] + by
        spine["week_start"] = spine["week_start"] + by
        return Fleet(subscriptions, usage, spine, self.as_of + weeks * WEEK)


def make_accounts(count: int, seed: int, weeks: int = 44) -> Fleet:
    """`count` histories over `weeks` weeks, the last of them running; some weeks are incomplete or never arrived."""
    rng = np.random.default_rng(seed)
    first, ids = np.datetime64(FIRST_WEEK), np.char.mod("a%06d", np.arange(count))
    as_of = FIRST_WEEK + (weeks - 1) * WEEK + timedelta(days=2)
    days = weeks * 7

    # subscription rows: none, one or several of the application; for a third of them rows of the whole account too
    rows = rng.choice([0, 1, 2, 3], count, p=[0.06, 0.5, 0.3, 0.14])
    account_rows = rng.choice([0, 1, 2], count, p=[0.66, 0.24, 0.10])
    own = np.repeat(np.arange(count), rows)
    whole = np.repeat(np.arange(count), account_rows)
    who = np.concatenate([own, whole])
    start = rng.integers(-80, days + 10, len(who))
    length = rng.choice([20, 60, 150, 400], len(who)) + rng.integers(-30, 30, len(who))
    length = np.where(rng.random(len(who)) < 0.02, -5, length)  # ended before it began
    is_open = rng.random(len(who)) < 0.3
    end = np.where(is_open, 10**6, start + length)
    notice = np.where(rng.random(len(who)) < 0.4, end - rng.integers(5, 90, len(who)), 10**6)
    day = lambda number: pd.Series(first + np.minimum(number, 10**5).astype("timedelta64[D]")).where(number < 10**5)  # noqa: E731
    subscriptions = pd.DataFrame(
        {
            "account_id": ids[who],
            "application": np.where(np.arange(len(who)) < len(own), "p", None),
            "start_date": day(start),
            "notice_date": day(notice),
            "end_date": day(end),
            "end_reason": np.where(is_open, None, rng.choice(["cancelled", "completed"], len(who))),
            "renewal_date": pd.Series(np.full(len(who), np.datetime64("NaT"), "datetime64[D]")),
            "seats": 5,
            "annual_value": 100.0,
        }
    )

    # clicks: a level of its own, silent stretches, a decline for some
    level = rng.choice([0, 0.6, 4, 30], count, p=[0.08, 0.2, 0.3, 0.42])[:, None] * rng.lognormal(0, 0.3, (count, 1))
    week = np.arange(weeks)[None, :]
    quiet_from, quiet_for = rng.integers(0, weeks, (count, 1)), rng.integers(0, 25, (count, 1))
    mean = np.where((week >= quiet_from) & (week < quiet_from + quiet_for), 0, level)
    falls_from = rng.integers(0, 2 * weeks, (count, 1))
    mean = np.where(week >= falls_from, mean * 0.2, mean)
    clicks = rng.poisson(mean)

    has_arrived = rng.random(weeks) > 0.05
    is_running = np.arange(weeks) == weeks - 1
    is_complete = has_arrived & (rng.random(weeks) > 0.05) & ~is_running
    clicks[:, ~has_arrived] = 0
    account, number = np.nonzero(clicks)
    monday = pd.Series(first + (7 * number).astype("timedelta64[D]"))
    into = rng.integers(0, 7, len(account))
    at = monday + pd.to_timedelta(into, "D")
    usage = pd.DataFrame(
        {
            "week_start": monday,
            "account_id": ids[account],
            "application": "p",
            "clicks": clicks[account, number],
            "records_created": 0,
            "active_users": 1,
            "source_rows": 1,
            "first_day": at,
            "last_day": at,
        }
    )
    spine = pd.DataFrame(
        {
            "week_start": pd.Series(first + 7 * np.arange(weeks).astype("timedelta64[D]")),
            "has_arrived": has_arrived,
            "is_complete": is_complete,
            "is_running": is_running,
        }
    )
    return Fleet(subscriptions, usage, spine, as_of)


# subscription weeks and states, with the names of what they number
GRID = "(SELECT * FROM core.subscription_weeks JOIN core.account_applications USING (account_application_id))"
USAGE_STATES = "(SELECT * FROM core.usage_states JOIN core.account_applications USING (account_application_id))"

TABLES = (
    "subscription_periods",
    "subscription_terms",
    "subscription_states",
    "account_applications",
    "subscription_weeks",
    "usage_states",
    "account_application_states",
)


def computed(fleet: Fleet, settings: Settings) -> duckdb.DuckDBPyConnection:
    """The activity tables of a fleet, by the product's own SQL."""
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA ref; CREATE SCHEMA core")
    for name, frame in (
        ("ref.subscriptions", fleet.subscriptions),
        ("core.weekly_usage", fleet.usage),
        ("core.weeks", fleet.weeks),
    ):
        connection.register("frame", frame)
        dates = [c for c in frame.columns if c.endswith(("_date", "_day")) or c == "week_start"]
        listed = ", ".join(f"CAST({c} AS DATE) AS {c}" if c in dates else c for c in frame.columns)
        connection.execute(f"CREATE TABLE {name} AS SELECT {listed} FROM frame")
        connection.unregister("frame")
    connection.execute("CREATE TABLE ref.subscriptions_rejected AS FROM ref.subscriptions LIMIT 0")
    # one user, and no months: growth is counted by week
    connection.execute(
        "CREATE TABLE core.weekly_users AS SELECT week_start, account_id, application, account_id || 'u' AS user_id, "
        "clicks, first_day, last_day FROM core.weekly_usage"
    )
    connection.execute(
        "CREATE TABLE core.account_days AS SELECT account_id, first_day AS day, clicks FROM core.weekly_usage"
    )
    connection.execute(
        "CREATE TABLE core.monthly_users (month_start DATE, account_id VARCHAR, application VARCHAR, user_id VARCHAR, "
        "clicks BIGINT)"
    )
    connection.execute("CREATE TABLE core.months (month_start DATE, month_end DATE, is_complete BOOLEAN)")
    values = sql_values(settings) | {"as_of_day": fleet.as_of}
    for name in (*TABLES, "growth_events"):
        make_table(connection, name, settings, values)
    return connection


def make_table(connection: duckdb.DuckDBPyConnection, name: str, settings: Settings, values: dict[str, Any]) -> None:
    """One of the activity tables, as its asset makes it."""
    if name == "usage_states":
        replace_usage_states(connection, settings.activity)
    elif name == "account_applications":
        number(connection, no_numbers())
    else:
        folder = "activity" if name == "subscription_periods" else "defs/activity"
        run_sql(connection, f"CREATE OR REPLACE TABLE core.{name} AS {load_sql(folder, name)}", values)


# ---------------------------------------------------------------- the oracle


@dataclass
class History:
    """One account with one application, as a person would write it down."""

    account_rows: list[dict[str, Any]] = field(default_factory=list)
    application_rows: list[dict[str, Any]] = field(default_factory=list)
    clicks: dict[date, int] = field(default_factory=dict)
    used_on: dict[date, date] = field(default_factory=dict)  # the one day of each week
    first_use: date | None = None


def histories_of(fleet: Fleet) -> dict[str, History]:
    found: dict[str, History] = {}
    for row in fleet.subscriptions.to_dict("records"):
        plain = {k: (None if pd.isna(v) else v.date() if isinstance(v, pd.Timestamp) else v) for k, v in row.items()}
        history = found.setdefault(str(row["account_id"]), History())
        (history.application_rows if plain["application"] else history.account_rows).append(plain)
    for row in fleet.usage.to_dict("records"):
        history = found.setdefault(str(row["account_id"]), History())
        history.clicks[row["week_start"].date()] = int(row["clicks"])
        day = row["first_day"].date()
        history.used_on[row["week_start"].date()] = day
        history.first_use = min(day, history.first_use or day)
    return found


def merged(rows: list[dict[str, Any]], gap: int) -> list[tuple[date, date, dict[str, Any]]]:
    """Runs of rows with fewer than `gap` days between: start, end, and the row that reaches furthest."""

    def reach(row: dict[str, Any]) -> tuple[date, date, date, str]:
        return (row["end_date"] or OPEN, row["start_date"], row["notice_date"] or OPEN, row["end_reason"] or "")

    sound = [row for row in rows if row["end_date"] is None or row["end_date"] >= row["start_date"]]
    runs: list[list[dict[str, Any]]] = []
    for row in sorted(sound, key=lambda r: r["start_date"]):
        if runs and (row["start_date"] - max(reach(r)[0] for r in runs[-1])).days - 1 < gap:
            runs[-1].append(row)
        else:
            runs.append([row])
    furthest = [max(run, key=reach) for run in runs]
    return [(run[0]["start_date"], reach(last)[0], last) for run, last in zip(runs, furthest, strict=True)]


def periods_of(history: History, gap: int) -> list[tuple[date, date, date | None]]:
    """Start, end and notice of each subscription period of the application."""
    of_account = merged(history.account_rows, gap)
    if history.application_rows:
        subscription_periods = []
        for start, end, row in merged(history.application_rows, gap):
            if not history.account_rows:
                subscription_periods.append((start, end, row["notice_date"]))
            for cap_start, cap_end, cap in of_account:
                if start <= cap_end and end >= cap_start:
                    own = row["notice_date"] or cap["notice_date"]
                    notice = cap["notice_date"] if cap_end < end else own
                    subscription_periods.append((max(start, cap_start), min(end, cap_end), notice))
        return sorted(subscription_periods)
    if history.first_use is None:
        return []
    if history.account_rows:
        used = history.first_use
        return [(max(start, used), end, row["notice_date"]) for start, end, row in of_account if end >= used]
    return [(history.first_use, OPEN, None)]


def states_of(history: History, fleet: Fleet, settings: Settings) -> dict[date, tuple[Any, ...]]:
    """Subscription state, usage state, weeks without use, whether it came back, recent and usual level, of every week."""
    rules = settings.activity
    subscription_periods = periods_of(history, rules.renewal_gap_days)
    found: dict[date, tuple[Any, ...]] = {}
    full: list[int] = []  # clicks of the full weeks so far
    used_periods: set[int] = set()
    has_used, since_use, before = False, 0, 0
    for row in fleet.weeks.itertuples():
        week = row.week_start.date()
        sunday = week + timedelta(days=6)
        inside = [(n, s) for n, s in enumerate(subscription_periods) if s[0] <= sunday and s[1] >= week]
        if not inside:
            continue
        clicks = history.clicks.get(week, 0)
        number, (start, end, notice) = inside[-1]
        # a use is known at once, even of a week that is not complete; before the subscription it is none of it
        is_used = clicks > 0 and start <= history.used_on[week] <= end
        if not row.is_complete and not is_used:
            continue
        is_full = row.is_complete and start <= week and end >= sunday
        since_use, before = 0 if is_used else since_use + is_full, since_use
        used_before, has_used = has_used, has_used or is_used
        used_periods |= {number} if is_used else set()
        if not is_full:
            continue
        full.append(clicks)
        weeks_of_period_rows = sum(
            1 for other in fleet.weeks[fleet.weeks["is_complete"]]["week_start"]
            if start <= other.date() <= week and other.date() + timedelta(days=6) <= end
        )  # fmt: skip
        usual = full[: -rules.recent_weeks][-rules.usual_weeks :]
        recent = full[-rules.recent_weeks :]
        level = sum(recent) / len(recent)
        if weeks_of_period_rows <= rules.new_weeks:
            usage = "new"
        elif number not in used_periods:
            usage = "never adopted"
        elif since_use >= rules.inactive_weeks:
            usage = "inactive"
        elif usual and median(usual) >= rules.low_floor_clicks and level < rules.low_share * median(usual):
            usage = "low"
        else:
            usage = "active"
        subscription = "notice received" if notice is not None and notice <= sunday else "active subscription"
        came_back = clicks > 0 and used_before and before >= rules.inactive_weeks
        found[week] = (subscription, usage, since_use, came_back, level, median(usual) if usual else None)
    return found
