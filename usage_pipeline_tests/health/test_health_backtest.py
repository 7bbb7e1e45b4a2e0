"""What became of green, amber and red: counted apart in plain Python, and called a signal only where it is one."""

import math
import tempfile
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usage_pipeline.config.settings import load_settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline_tests.support.lakes import write_config

AS_OF = date(2025, 3, 5)
NEWEST = date(2025, 2, 24)
QUARTERS = [NEWEST - timedelta(days=91 * n) for n in range(5)]
FAR = date(9999, 12, 31)
# account, application, color, notice, end, end reason: scored in every quarter in which it runs
Subject = tuple[str, str, str, date | None, date | None, str | None]


def backtest(subjects: list[Subject], accounts: dict[str, str]) -> dict[tuple[str, int, str, str], dict[str, Any]]:
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA core")
    connection.execute(
        "CREATE TABLE core.health_scores (as_of_week DATE, account_id VARCHAR, application VARCHAR, basis VARCHAR, "
        "has_notice BOOLEAN, health_color VARCHAR)"
    )
    connection.execute(
        "CREATE TABLE core.subscription_periods (account_id VARCHAR, application VARCHAR, start_date DATE, end_date DATE, "
        "notice_date DATE, end_reason VARCHAR)"
    )
    # somebody is there in the newest week, and is none of the subjects
    rows, periods = [[NEWEST, "somebody", "p", "application", False, "green"]], []
    for account, application, color, notice, end, reason in subjects:
        periods.append([account, application, date(2020, 1, 1), end or FAR, notice, reason])
        for week in QUARTERS:
            sunday = week + timedelta(days=6)
            if sunday < (end or FAR):
                rows.append([week, account, application, "application", bool(notice and notice <= sunday), color])
    for account, color in accounts.items():
        for week in QUARTERS:
            of_week = [row for row in rows if row[0] == week and row[1] == account]
            if of_week:
                rows.append([week, account, None, "application", all(row[4] for row in of_week), color])
    for row in rows:
        connection.execute("INSERT INTO core.health_scores VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.executemany("INSERT INTO core.subscription_periods VALUES (?, ?, ?, ?, ?, ?)", periods)
    with tempfile.TemporaryDirectory() as folder:
        values = sql_values(load_settings(write_config(Path(folder))))
    run_sql(connection, f"CREATE TABLE found AS {load_sql('defs/health', 'health_backtest')}", values)
    found = connection.execute("FROM found").df().to_dict("records")
    return {(row["unit"], row["days_ahead"], row["quarter"], row["health_color"]): row for row in found}


def counted(subjects: list[Subject], accounts: dict[str, str]) -> dict[tuple[str, int, str, str], tuple[int, int]]:
    """Number and churned of each row, by hand."""
    number: Counter[tuple[str, int, str, str]] = Counter()
    churned: Counter[tuple[str, int, str, str]] = Counter()
    for days in (90, 180):
        for nth, week in enumerate(QUARTERS):
            sunday, last = week + timedelta(days=6), week + timedelta(days=6 + days)
            if last >= AS_OF:
                continue
            names = [str(week)] + (["all"] if days == 90 or nth % 2 == 0 else [])
            of_accounts: dict[str, list[bool]] = {}
            for account, _, color, notice, end, reason in subjects:
                if sunday >= (end or FAR) or (notice and notice <= sunday):
                    continue
                as_agreed = end is not None and reason in ("completed", "renewed")
                if as_agreed and end is not None and end <= last:
                    continue
                left = notice or end
                gone = bool(left and sunday < left <= last and not as_agreed)
                of_accounts.setdefault(account, []).append(gone)
                for name in names:
                    number["application of an account", days, name, color] += 1
                    churned["application of an account", days, name, color] += gone
            for account, of_applications in of_accounts.items():
                for name in names:
                    number["account", days, name, accounts[account]] += 1
                    churned["account", days, name, accounts[account]] += all(of_applications)
    return {key: (count, churned[key]) for key, count in number.items()}


day = st.integers(0, 500).map(lambda n: date(2024, 1, 15) + timedelta(days=n))


@st.composite
def subjects(draw: st.DrawFn) -> Subject:
    account = draw(st.sampled_from(["a", "b", "c"]))
    end = draw(st.one_of(st.none(), day))
    notice = draw(st.one_of(st.none(), st.integers(0, 60).map(lambda n: (end or date(2025, 1, 1)) - timedelta(days=n))))
    reason = draw(st.sampled_from(["cancelled", "completed", "renewed", None])) if end else None
    color = draw(st.sampled_from(["green", "amber", "red", "not known"]))
    return account, draw(st.sampled_from(["p", "q", "r"])), color, notice, end, reason


@pytest.mark.long
@given(st.lists(subjects(), min_size=1, max_size=8, unique_by=lambda s: s[:2]))
@settings(max_examples=40, deadline=None)
def test_every_row_counts_what_a_loop_counts(world: list[Subject]) -> None:
    accounts = {"a": "green", "b": "red", "c": "amber"}
    found = backtest(world, {a: c for a, c in accounts.items() if a in {s[0] for s in world}})
    assert {key: (row["subjects"], row["churned"]) for key, row in found.items()} == counted(world, accounts)


@pytest.mark.long
def test_a_signal_needs_twice_the_rate_an_interval_clear_of_one_and_thirty_events() -> None:
    """Of 100 red ones 40 leave and of 100 green ones 10: red churned four times as often, and Katz's interval says so."""
    gone = date(2024, 12, 15)

    def world(red: int, green: int, of_each: int = 100) -> list[Subject]:
        return [
            (f"{color}{n}", "p", color, None, gone if n < leaving else None, "cancelled" if n < leaving else None)
            for color, leaving in (("red", red), ("green", green))
            for n in range(of_each)
        ]

    def told(red: int, green: int) -> dict[str, Any]:
        people = {f"{color}{n}": color for color in ("red", "green") for n in range(100)}
        week = str(NEWEST - timedelta(days=91))
        return backtest(world(red, green), people)["application of an account", 90, week, "red"]

    clear = told(40, 10)
    assert clear["health_signal"] == "Red churned 3.9 times as often as green"
    ratio = (40.5 / 100.5) / (10.5 / 100.5)
    half = 1.96 * math.sqrt(1 / 40.5 - 1 / 100.5 + 1 / 10.5 - 1 / 100.5)
    assert clear["red_to_green"] == pytest.approx(ratio)
    assert clear["red_to_green_lower"] == pytest.approx(ratio * math.exp(-half))
    assert clear["red_to_green_upper"] == pytest.approx(ratio * math.exp(half))
    assert clear["churn_rate_lower"] < 0.4 < clear["churn_rate_upper"]
    assert told(12, 3)["health_signal"] == "No signal yet: 15 churned, 30 are needed"
    assert told(30, 28)["health_signal"] == "No signal yet: red churned 1.1 times as often as green"
