"""The KPI sheet: every value against raw files read with plain Python, and what must hold whatever the lake."""

import math
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from usage_pipeline.config.settings import ConfigError, GroupSettings, load_settings
from usage_pipeline.core.fingerprints import fingerprint
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.core.tables import METRICS
from usage_pipeline.core.texts import texts
from usage_pipeline.defs.kpis.checks import clicks_are_those_of_the_days, what_adds_up_adds_up
from usage_pipeline.ingestion.source_check import check_sources
from usage_pipeline.kpis import report
from usage_pipeline.kpis.catalogue import KPIS, KpiError, check_expressions, read_kpis
from usage_pipeline.resources import Warehouse
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.kpi_oracle import World
from usage_pipeline_tests.support.kpi_worlds import (
    MONDAY,
    a_world,
    computed,
    differences,
    make_values,
    read_sheet,
    settings_of,
    sheet_of,
    subscription,
    value,
    world_of,
)
from usage_pipeline_tests.support.lakes import write_config

MONTHLY = ["month", "3 months", "6 months", "12 months", "year to date"]


@pytest.fixture(scope="module")
def sheet(demo: Demo) -> Iterator[pd.DataFrame]:
    connection = duckdb.connect(str(demo.warehouse.resolve()), read_only=True)
    yield read_sheet(connection)
    connection.close()


@pytest.mark.long
def test_every_kpi_of_every_entity_and_period_is_that_of_the_raw_files(demo: Demo, sheet: pd.DataFrame) -> None:
    assert differences(sheet, world_of(demo)) == []
    assert sheet["kpi"].nunique() == 20
    assert sheet["entity_type"].nunique() == 9
    assert set(sheet["kpi_period"]) == {"week", *MONTHLY}


# ------------------------------------------------------------- what must hold of every sheet


def wide(sheet: pd.DataFrame, kpi: str, period: str) -> pd.DataFrame:
    """Values of a KPI: a row an entity, a column a reference month."""
    rows = sheet[(sheet["kpi"] == kpi) & (sheet["kpi_period"] == period) & sheet["is_complete_period"]]
    return rows.pivot(index=["entity_type", "entity_key"], columns="reference_month", values="value")


def months_until(reference: pd.Timestamp, period: str) -> list[pd.Timestamp]:
    length = {"3 months": 3, "6 months": 6, "12 months": 12, "year to date": reference.month}[period]
    return [reference - pd.DateOffset(months=back) for back in range(length)]


def check_distinct(sheet: pd.DataFrame) -> None:
    """Never more than the sum of the months, never fewer than the largest of them."""
    for kpi in ("Active users", "Active accounts", "Active application subscriptions"):
        months = wide(sheet, kpi, "month")
        for period in MONTHLY[1:]:
            for reference, found in wide(sheet, kpi, period).items():
                parts = months.reindex(index=found.dropna().index, columns=months_until(reference, period)).fillna(0)
                assert (found.dropna() <= parts.sum(axis=1)).all()
                assert (found.dropna() >= parts.max(axis=1)).all()


def check_partitions(sheet: pd.DataFrame) -> None:
    """What adds up gives the value of all, over whatever parts of all; subscriptions about accounts are no application's."""
    for kpi in (kpi for kpi in read_kpis().kpis if kpi.aggregation != "non_additive"):
        for period in ("week", *MONTHLY):
            values = wide(sheet, kpi.title, period)
            if values.empty:
                continue
            sums = values.groupby("entity_type").sum(min_count=1)
            parts = ["segment", "region", "CSM", "application", "application type"]
            for entity_type in parts if period == "week" else [*parts, "account"]:
                found, of_all = sums.loc[entity_type].fillna(0), sums.loc["all"].fillna(0)
                if kpi.name in ("seats", "annual_value") and entity_type.startswith("application"):
                    assert (found <= of_all + 1e-6).all(), (kpi.name, period)
                else:
                    assert np.allclose(found, of_all), (kpi.name, period)


def check_ratios(sheet: pd.DataFrame) -> None:
    """Between the extremes of the months."""
    for kpi in (kpi for kpi in read_kpis().kpis if kpi.computed.kind == "ratio"):
        months = wide(sheet, kpi.title, "month")
        for period in MONTHLY[1:]:
            for reference, found in wide(sheet, kpi.title, period).items():
                known = found.dropna()
                parts = months.reindex(index=known.index, columns=months_until(reference, period))
                assert (known >= parts.min(axis=1) - 1e-9).all() and (known <= parts.max(axis=1) + 1e-9).all()


def check_years(sheet: pd.DataFrame) -> int:
    """Year to date in December is 12 months; returns how many values were compared."""
    columns = ["kpi", "entity_type", "entity_key", "reference_month"]
    december = sheet[sheet["reference_month"].dt.month == 12].set_index(columns)
    to_date = december[december["kpi_period"] == "year to date"]["value"]
    year = december[december["kpi_period"] == "12 months"]["value"]
    assert set(to_date.index) == set(year.index)
    assert np.array_equal(to_date, year.reindex(to_date.index), equal_nan=True)
    return len(year)


def check_comparisons(sheet: pd.DataFrame) -> None:
    """Differences, averages, words and big changes follow from the values beside them."""
    difference = sheet["value"] - sheet["value_year_ago"]
    kpis = {kpi.title: kpi for kpi in read_kpis().kpis}
    averaged = sheet["kpi"].map({title: kpi.per_active_account for title, kpi in kpis.items()})
    average = (sheet["value"] / sheet["active_accounts"].replace(0, np.nan)).where(averaged)
    assert np.array_equal(sheet["per_active_account"].astype(float), average.astype(float), equal_nan=True)
    sign = sheet["kpi"].map({title: {"up": 1, "down": -1}[kpi.good] for title, kpi in kpis.items()})
    moved = pd.Series(np.sign(difference) * sign)
    assert (
        sheet["change_is"] == moved.map({1: "improved", -1: "declined", 0: "no change"}).fillna("not compared")
    ).all()
    floor = sheet["kpi"].map({title: kpi.big_change.floor for title, kpi in kpis.items()})
    share = sheet["kpi"].map({title: kpi.big_change.share for title, kpi in kpis.items()})
    size = difference.abs()
    assert (sheet["is_big_change"] == ((size >= floor) & (size >= share * sheet["value_year_ago"].abs()))).all()
    assert (sheet["big_change"].notna() == sheet["is_big_change"]).all()
    assert sheet.loc[~sheet["is_complete_period"], ["value_year_ago", "value_before"]].isna().all(axis=None)


CHECKS = [check_distinct, check_partitions, check_ratios, check_years, check_comparisons]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_of_the_demo_holds(sheet: pd.DataFrame, check: Any) -> None:
    check(sheet)


# ------------------------------------------------------------- whatever the lake


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A handful of rows and subscriptions over a year and a half; sometimes a week that never arrived."""
    first = date(2023, 10, 2) + timedelta(weeks=draw(st.integers(0, 140)))
    length = 80
    as_of = first + timedelta(weeks=length - 1, days=draw(st.integers(0, 6)))
    day = st.integers(0, (as_of - first).days - 9).map(lambda n: first + timedelta(n))
    event = st.tuples(
        st.sampled_from("abc"), st.sampled_from("pqr"), st.sampled_from(["u", "v", "w", None]), day, st.integers(0, 30)
    )
    seats = {"seats": st.sampled_from([None, 1, 5]), "annual_value": st.sampled_from([None, 100.0, 999.99])}
    row = st.builds(
        lambda account, application, start, days, reason, told: subscription(
            account,
            application,
            first + timedelta(start),
            None if days is None else first + timedelta(start + days),
            end_reason=None if days is None else reason,
            **told,
        ),
        st.sampled_from("abc"),
        st.sampled_from(["p", "q", "r", None]),
        st.integers(-200, 500),
        st.sampled_from([None, 20, 45, 200]),
        st.sampled_from(["cancelled", "completed"]),
        st.fixed_dictionaries(seats),
    )
    missing = draw(st.lists(st.integers(1, length - 2), max_size=1))
    events = draw(st.lists(event, min_size=5, max_size=60))
    # a score is of an application that somebody has used
    listed = {(account, application) for account, application, *_ in events[:3]}
    risks = {first + timedelta(weeks=length - 10): listed} if draw(st.booleans()) else {}
    return a_world(
        events,
        first,
        as_of,
        draw(st.lists(row, max_size=8)),
        tuple(first + timedelta(weeks=n) for n in missing),
        risks=risks,
    )


# a sheet takes half a second: to look for a smaller example takes minutes
@hypothesis_settings(deadline=None, max_examples=12, phases=[Phase.reuse, Phase.generate])
@given(worlds())
@pytest.mark.long
def test_whatever_the_lake_it_is_that_of_the_raw_rows_and_adds_up(world: World) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sheet = sheet_of(world, Path(folder))
    assert differences(sheet, world) == []
    for check in CHECKS:
        check(sheet)


# ------------------------------------------------------------- calendars and gaps


@pytest.mark.sample("0", "1")
@pytest.mark.parametrize("seed", range(6))
def test_periods_made_by_themselves_are_those_made_with_all_others(tmp_path: Path, seed: int) -> None:
    """What is left of closed periods must be what a full refresh would make: each drawn anew, in parts of any size."""
    chance = random.Random(seed)
    days = [date(2024, 1, 1) + timedelta(n) for n in range(160)]
    events = [
        (chance.choice("abc"), chance.choice("pqr"), chance.choice([None, "u", "v", "w"]), chance.choice(days), n % 7)
        for n in range(400)
    ]
    subscriptions = [
        subscription("a", "p", date(2023, 1, 1), None, seats=5, annual_value=100.0),
        subscription("a", None, date(2024, 2, 10), date(2024, 4, 20), seats=9, annual_value=50.0),
        subscription("b", "q", date(2024, 1, 20), date(2024, 3, 31), seats=2, end_reason="cancelled"),
    ]
    world = a_world(events, date(2024, 1, 1), date(2024, 6, 12), subscriptions)
    settings, catalogue = settings_of(world, tmp_path), read_kpis()
    with computed(world, settings) as connection:
        tables = ("core.kpi_values", "core.kpi_account_level", "mart.kpi_report")
        whole = {table: fingerprint(connection, table) for table in tables}
        numbers = [str(n) for (n,) in connection.execute("SELECT period_no FROM core.kpi_periods").fetchall()]
        chance.shuffle(numbers)
        while numbers:
            part = [numbers.pop() for _ in range(min(len(numbers), chance.randrange(1, 9)))]
            gone = {"part": part}
            connection.execute(
                "DELETE FROM core.kpi_values WHERE CAST(period_no AS VARCHAR) IN (SELECT unnest($part))", gone
            )
            make_values(connection, settings, catalogue, part)
            assert {table: fingerprint(connection, table) for table in tables} == whole, part
        reference = "CAST(reference_month AS VARCHAR)"
        found = connection.execute(f"SELECT DISTINCT {reference} FROM mart.kpi_report ORDER BY 1").fetchall()
        part = chance.sample([month for (month,) in found], len(found) // 2)
        connection.execute(f"DELETE FROM mart.kpi_report WHERE {reference} IN (SELECT unnest($part))", {"part": part})
        report.replace_sheet(connection, catalogue, part)
        assert {table: fingerprint(connection, table) for table in tables} == whole


def test_the_leap_day_counts_in_its_month_and_has_no_day_of_its_own_a_year_later(tmp_path: Path) -> None:
    always = subscription("a", "p", date(2020, 1, 1))
    rows = [("a", "p", "u", date(2024, 2, 29), 7), ("a", "p", "u", date(2025, 2, 28), 5)]
    world = a_world(rows, MONDAY, date(2025, 4, 20), [always])
    sheet = sheet_of(world, tmp_path)
    assert differences(sheet, world) == []
    assert value(sheet, "Clicks", "a", "month", "2024-02-01") == 7
    february = sheet[(sheet["reference_month"] == "2024-02-01") & (sheet["kpi_period"] == "month")]
    assert set(february["period_to"]) == {pd.Timestamp("2024-02-29")}
    assert value(sheet, "Clicks", "a", "month", "2025-02-01", "value_year_ago") == 7
    assert value(sheet, "Clicks", "a", "12 months", "2025-01-01") == 7
    assert value(sheet, "Clicks", "a", "12 months", "2025-02-01") == 5


def test_week_53_is_compared_with_week_52_and_nothing_with_week_53(tmp_path: Path) -> None:
    rows = [
        ("a", "p", "u", date(2025, 12, 22), 52),
        ("a", "p", "u", date(2026, 1, 1), 1),
        ("a", "p", "u", date(2026, 12, 21), 520),
        ("a", "p", "u", date(2026, 12, 28), 530),
        ("a", "p", "u", date(2027, 1, 4), 10),
        ("a", "p", "u", date(2027, 12, 27), 5200),
    ]
    world = a_world(rows, date(2025, 10, 6), date(2028, 1, 30), [subscription("a", "p", date(2020, 1, 1))])
    sheet = sheet_of(world, tmp_path)
    assert differences(sheet, world) == []
    year_ago = {
        week: value(sheet, "Clicks", "all", "week", week, "value_year_ago")
        for week in ("2026-12-21", "2026-12-28", "2027-01-04", "2027-12-27")
    }
    assert year_ago == {"2026-12-21": 52, "2026-12-28": 52, "2027-01-04": 1, "2027-12-27": 520}
    assert value(sheet, "Clicks", "all", "week", "2027-01-04", "value_before") == 530


def test_subscriptions_about_a_whole_account_count_for_accounts_once_and_for_no_application(tmp_path: Path) -> None:
    """Their seats and value were thrown away; several run side by side, and each is worth what it says."""
    start = date(2023, 12, 1)
    rows = [("a", app, user, date(2024, 2, day), 1) for app in "pq" for user in "uv" for day in (5, 20)]
    rows += [("b", "p", "w", date(2024, 2, 6), 1)]
    subscriptions = [
        subscription("a", None, start, seats=10, annual_value=1000.0),
        subscription("a", None, start, date(2024, 2, 29), end_reason="cancelled", seats=1, annual_value=300.0),
        subscription("a", "p", start, seats=1, annual_value=50.0),
        subscription("a", "q", start),
        subscription("b", "p", start, seats=4, annual_value=7.0),
        # paid for, and never adopted
        subscription("c", None, start, seats=2, annual_value=20.0),
    ]
    world = a_world(rows, MONDAY, date(2024, 5, 19), subscriptions)
    settings = settings_of(world, tmp_path)
    connection = computed(world, settings)
    sheet = read_sheet(connection)
    assert differences(sheet, world) == []

    def found(kpi: str, month: str, *entities: str) -> list[float | None]:
        return [value(sheet, kpi, entity, "month", month) for entity in entities]

    who = ("a", "b", "c", "all", "City", "p", "q")
    assert found("ARR", "2024-02-01", *who) == [1350, 7, 20, 1377, 27, 57, None]
    assert found("ARR", "2024-03-01", *who) == [1050, 7, 20, 1077, 27, 57, None]
    assert found("Seats", "2024-02-01", *who) == [12, 4, 2, 18, 6, 5, None]
    # p has one seat of its own, for the two who use it; the two who use q take seats of the whole account
    assert found("Seat utilization a month", "2024-02-01", "a", "p") == [
        pytest.approx(100 * 4 / 12),
        pytest.approx(100 * 3 / 5),
    ]
    assert found("Customers", "2024-03-01", "all", "c", "p") == [3, 1, 2]
    sql = run_sql(connection, load_sql("defs/kpis", "kpi_partitions"), {"titles": ["ARR", "Seats"]})
    assert sql.fetchall() == []


def test_a_renewal_changes_nothing_of_the_months_before_it(tmp_path: Path) -> None:
    """Rows of one subscription were merged, and today's value and seats stood in months long past."""
    rows = [("a", "p", "u", date(2024, 1, 10), 3)]
    subscriptions = [
        subscription("a", "p", date(2023, 1, 1), date(2024, 2, 29), end_reason="renewed", seats=3, annual_value=100.0),
        subscription("a", "p", date(2024, 3, 1), date(2024, 4, 25), end_reason="renewed", seats=5, annual_value=250.0),
        # some days later, and with an empty cell: the seats go on
        subscription("a", "p", date(2024, 5, 3), annual_value=200.0),
        # known already, and still to come
        subscription("a", "p", date(2025, 3, 1), seats=9, annual_value=900.0),
        subscription("a", None, date(2023, 1, 1), date(2024, 4, 20), annual_value=1000.0),
        subscription("a", None, date(2024, 5, 2), annual_value=1100.0),
    ]
    world = a_world(rows, MONDAY, date(2024, 8, 18), subscriptions)
    sheet = sheet_of(world, tmp_path)
    assert differences(sheet, world) == []
    months = [f"2024-{month:02d}-01" for month in range(2, 9)]
    of_application = [value(sheet, "ARR", "p", "month", month) for month in months]
    assert of_application == [100, 250, 250, 200, 200, 200, 200]
    assert [value(sheet, "ARR", "a", "month", month) for month in months] == [1100, 1250, 1250, *[1300] * 4]
    assert [value(sheet, "Seats", "p", "month", month) for month in months] == [3, 5, 5, 5, 5, 5, 5]


def test_who_stops_and_returns_inside_a_period_is_counted_once(tmp_path: Path) -> None:
    rows = [
        ("a", "p", "u", date(2024, 1, 10), 3),
        ("a", "p", "u", date(2024, 4, 10), 4),
        ("a", "p", "v", date(2024, 4, 9), 1),
    ]
    subscriptions = [
        subscription("a", "p", date(2024, 1, 1), date(2024, 1, 31), end_reason="cancelled", seats=3, annual_value=10.0),
        subscription("a", "p", date(2024, 4, 1), seats=5, annual_value=20.0),
    ]
    world = a_world(rows, MONDAY, date(2024, 8, 18), subscriptions)
    sheet = sheet_of(world, tmp_path)
    assert differences(sheet, world) == []
    found = {
        kpi: value(sheet, kpi, "a", "6 months", "2024-06-01")
        for kpi in ("Active users", "Active accounts", "Clicks", "Churned", "Reactivated", "Seats")
    }
    assert found == {
        "Active users": 2,
        "Active accounts": 1,
        "Clicks": 8,
        "Churned": 1,
        "Reactivated": 1,
        "Seats": 5,
    }
    # neither subscribed nor used: no row, not a 0
    assert value(sheet, "Clicks", "a", "month", "2024-03-01") is None
    assert value(sheet, "Clicks", "all", "month", "2024-03-01") is None


def test_a_month_without_data_is_in_no_period_and_compared_with_nothing(tmp_path: Path) -> None:
    rows = [("a", "p", "u", MONDAY + timedelta(days=n), 1) for n in range(0, 500, 3)]
    march = tuple(date(2024, 3, 4) + timedelta(weeks=n) for n in range(3))
    world = a_world(rows, MONDAY, date(2025, 4, 20), [subscription("a", "p", date(2020, 1, 1))], march)
    sheet = sheet_of(world, tmp_path)
    assert differences(sheet, world) == []
    references = {
        period: set(rows["reference_month"].dt.strftime("%Y-%m")) for period, rows in sheet.groupby("kpi_period")
    }
    assert "2024-03" not in references["month"]
    assert not {"2024-03", "2024-04", "2024-05"} & references["3 months"]
    assert "2024-06" in references["3 months"]
    assert "2024-12" not in references["year to date"] and "2025-01" in references["year to date"]
    assert value(sheet, "Clicks", "all", "month", "2024-04-01", "value_before") is None
    assert value(sheet, "Clicks", "all", "month", "2025-03-01", "value_year_ago") is None


def test_the_running_month_is_marked_and_compared_with_nothing(sheet: pd.DataFrame) -> None:
    running = sheet[~sheet["is_complete_period"]]
    assert set(running["kpi_period"]) == {"month"}
    assert set(running["reference_month"]) == {pd.Timestamp("2026-11-01")}
    assert set(running["period_to"]) == {pd.Timestamp("2026-11-22")}
    assert set(running["change_is"]) == {"not compared"}
    assert value(sheet, "Clicks", "all", "month", "2026-11-01") > 0


def test_what_is_not_delivered_is_empty_and_not_zero(tmp_path: Path) -> None:
    rows = [("a", "p", None, MONDAY + timedelta(days=n), 1) for n in range(200)]
    world = a_world(rows, MONDAY, date(2024, 5, 5))
    usage = {
        "path": "lake",
        "partitioned": True,
        "columns": {c: c for c in ("account_id", "application", "event_time", "clicks")},
    }
    sheet = sheet_of(world, tmp_path, usage=usage, subscriptions=None)
    empty = sheet.groupby("kpi")["value"].count() == 0
    assert set(empty[empty].index) == {
        *("Records created", "Clicks per active user a month", "Active users", "Users per account a month"),
        *("Customers", "ARR", "Seats", "Seat utilization a month", "Churned"),
        *("Never adopted", "At risk"),
    }


def test_a_lake_that_knows_no_days_has_weeks_alone_and_says_why(tmp_path: Path) -> None:
    rows = [("a", "p", "u", MONDAY + timedelta(weeks=n), n) for n in range(30)]
    world = a_world(rows, MONDAY, date(2024, 6, 2), has_days=False)
    settings = settings_of(world, tmp_path)
    connection = computed(world, settings)
    sheet = read_sheet(connection)
    assert differences(sheet, world) == []
    assert set(sheet["kpi_period"]) == {"week"}
    reason = report.why_no_months(connection, settings.sources)
    assert reason is not None and "days of use are not delivered" in reason and "usage.columns.event_time" in reason


# ------------------------------------------------------------- the page: no total can be wrong


def test_metrics_are_empty_where_rows_meet(demo: Demo) -> None:
    connection = duckdb.connect(str(demo.warehouse.resolve()), read_only=True)
    singles = {name: metric for name, metric in METRICS["kpi_report"].items() if name.startswith("single_")}
    listed = ", ".join(f"{metric.expression} AS {name}" for name, metric in singles.items())
    total = connection.execute(f"SELECT {listed} FROM mart.kpi_report").df()
    assert total.isna().all(axis=None)
    two = "entity_type = 'segment' AND kpi = 'Clicks' AND kpi_period = 'month' AND reference_month = '2026-10-01'"
    assert connection.execute(f"SELECT {listed} FROM mart.kpi_report WHERE {two}").df().isna().all(axis=None)
    each = connection.execute(
        f"SELECT any_value(value) AS value, {listed} FROM mart.kpi_report WHERE entity_type != 'account' "
        "GROUP BY kpi, entity_type, entity, kpi_period, reference_month"
    ).df()
    assert each["single_value"].equals(each["value"])
    for other in ("year_ago", "before"):
        suffix = "_before" if other == "before" else ""
        difference = each["value"] - each[f"single_{other}"]
        assert each[f"single_difference{suffix}"].equals(difference)
        assert each[f"single_percent{suffix}"].equals(difference / each[f"single_{other}"].replace(0, np.nan))


def test_bars_are_the_values_of_thirteen_periods(sheet: pd.DataFrame) -> None:
    """Beside each value its own history; bars begin as far below the least as the most lies above it, or at 0."""
    assert sheet.loc[sheet["entity_type"] == "account", "kpi_trend"].isna().all()
    # one of each: added, averaged, a ratio, a count, a sum of money
    some = ["Clicks", "Active users", "Clicks per active user a month", "New", "ARR"]
    others = sheet[(sheet["entity_type"] != "account") & sheet["kpi"].isin(some)]
    periods = {kind: sorted(rows["reference_month"].unique()) for kind, rows in others.groupby("kpi_period")}
    seen = 0
    for (kind, *_), rows in others.groupby(["kpi_period", "kpi", "entity_type", "entity_key"], observed=True):
        values = dict(zip(rows["reference_month"], rows["value"], strict=True))
        bars = dict(zip(rows["reference_month"], rows["kpi_trend"], strict=True))
        for place in range(0, len(periods[kind]), 7):
            if periods[kind][place] in bars:
                window = [values.get(at, np.nan) for at in periods[kind][max(0, place - 12) : place + 1]]
                assert bars[periods[kind][place]] == bars_of(window).rjust(13)
                seen += 1
    assert seen > 2_000


def bars_of(window: list[float]) -> str:
    known = [value for value in window if pd.notna(value)]
    most, ground = max(known, default=0), max(0, 2 * min(known, default=0) - max(known, default=0))

    def bar(value: float) -> str:
        if pd.isna(value):
            return " "
        if value <= 0:
            return "▁"
        if most == ground:
            return "▅"
        return "▂▃▄▅▆▇█"[min(7, math.ceil(7 * (value - ground) / (most - ground))) - 1]

    return "".join(map(bar, window))


def test_big_changes_are_sentences(sheet: pd.DataFrame) -> None:
    row = sheet[(sheet["kpi"] == "Inactive") & (sheet["entity_type"] == "all") & (sheet["kpi_period"] == "3 months")]
    last = row[row["reference_month"] == "2026-10-01"].iloc[0]
    wanted = f"Inactive of all accounts, 3 months to Oct 2026: {last.value:.0f}, a year ago {last.value_year_ago:.0f}"
    assert last["big_change"] == f"{wanted} ({100 * (last.value - last.value_year_ago) / last.value_year_ago:+.0f} %)"


# ------------------------------------------------------------- the catalogue and the groups


def changed_catalogue(folder: Path, entry: dict[str, Any] | None = None, **fields: Any) -> Path:
    """The catalogue with another entry, or with other fields of `clicks`."""
    content = yaml.safe_load(KPIS.read_text(encoding="utf-8"))
    content["kpis"]["clicks"] |= fields
    if entry is not None:
        content["kpis"]["added"] = entry
    file = folder / "kpis.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


ADDED = {
    "unit": "accounts",
    "format": ",d",
    "group": "Accounts",
    "aggregation": "non_additive",
    "computed": {"kind": "distinct", "count": "accounts", "where": "records_created > 0"},
    "needs": ["records"],
    "per_active_account": False,
    "good": "up",
    "big_change": {"share": 0.1, "floor": 3},
}
SEAT_VALUE = ADDED | {
    "unit": "amount",
    "format": "$,.0f",
    "computed": {"kind": "ratio", "numerator": "annual_value", "denominator": "seats"},
}


def test_a_kpi_that_is_added_comes_out(tmp_path: Path) -> None:
    rows = [
        ("a", "p", "u", date(2024, 1, 9), 1),
        ("a", "p", "u", date(2024, 2, 9), 4),
        ("b", "p", "u", date(2024, 2, 9), 1),
    ]
    world = a_world(
        rows, MONDAY, date(2024, 5, 5), [subscription("a", "p", date(2020, 1, 1), seats=4, annual_value=100.0)]
    )
    for entry, wanted in ((ADDED, [0.0, 1.0, 1.0]), (SEAT_VALUE, [25.0, 25.0, 25.0])):
        told = texts() | {"kpi.added.title": "Added", "kpi.added.description": "What was added"}
        catalogue = read_kpis(changed_catalogue(tmp_path, entry), told)
        sheet = read_sheet(computed(world, settings_of(world, tmp_path), catalogue))
        found = [value(sheet, "Added", "all", "month", f"2024-0{month}-01") for month in (1, 2)]
        assert [*found, value(sheet, "Added", "all", "3 months", "2024-03-01")] == wanted


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"aggregation": "non_additive"},
            "clicks: the entry: aggregation is 'non_additive', but it is computed as 'additive'",
        ),
        ({"format": ".0f"}, "clicks: format: Input should be ',d'"),
        ({"good": None}, "clicks: good: Input should be 'up', 'down' or 'neither'"),
        ({"colour": "red"}, "clicks: colour: unknown field; remove it or correct it"),
        ({"big_change": {"share": 0.1}}, "clicks: big_change.floor: missing; add it"),
        ({"computed": {"kind": "sum"}}, "clicks: computed.expression: missing; add it"),
        ({"computed": {"kind": "total"}}, "clicks: computed: Input tag 'total'"),
        ({"title": "Seats"}, "clicks: title: texts stand in usage_pipeline/texts; move it there"),
        ({"unit": "pecks"}, "clicks: unit: there is no text kpi_unit.pecks; add it"),
        (
            {
                "computed": {"kind": "ratio", "numerator": "klicks", "denominator": "seats"},
                "aggregation": "non_additive",
            },
            "clicks: computed.numerator: 'klicks' is no KPI or part that can be summed; there are accounts_subscribed",
        ),
    ],
)
def test_a_catalogue_that_is_wrong_names_file_entry_field_and_remedy(tmp_path: Path, fields: Any, message: str) -> None:
    with pytest.raises(KpiError, match=f"^{re.escape(f'kpis.yaml: {message}')}"):
        read_kpis(changed_catalogue(tmp_path, **fields))


def test_two_kpis_of_one_title_are_refused() -> None:
    with pytest.raises(KpiError, match=r"^kpis.yaml: title: two KPIs are called 'Seats'"):
        read_kpis(told=texts() | {"kpi.clicks.title": "Seats"})


def test_an_expression_over_what_is_not_there_names_what_is(tmp_path: Path) -> None:
    catalogue = read_kpis(changed_catalogue(tmp_path, computed={"kind": "sum", "expression": "klicks"}))
    with pytest.raises(KpiError, match=r"clicks: computed.expression: .*klicks.*; it may name clicks, records_created"):
        check_expressions(catalogue)
    check_expressions(read_kpis())


def test_a_group_with_a_member_that_nobody_knows_names_it(tmp_path: Path) -> None:
    world = a_world([("a", "p", "u", MONDAY, 1)], MONDAY, date(2023, 12, 3))
    world.groups = GroupSettings(accounts={"Pilots": ["a", "City B"]}, applications={"Field": ["x"]})
    with pytest.raises(report.GroupError) as raised:
        computed(world, settings_of(world, tmp_path))
    assert str(raised.value).splitlines() == [
        "groups.accounts.Pilots: no source knows account 'City B'; did you mean b? Write its key, or take it out of the group",
        "groups.applications.Field: no source knows application 'x'. Write its key, or take it out of the group",
    ]


def test_groups_are_checked_when_the_configuration_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"groups.accounts: the group 'Pilots' names a twice; name each once"):
        load_settings(write_config(tmp_path, groups={"accounts": {"Pilots": ["a", "a"]}}))
    with pytest.raises(ConfigError, match=r"groups.applications: the group 'None' has no members"):
        load_settings(write_config(tmp_path, groups={"applications": {"None": []}}))


def test_the_checks_find_what_is_wrong(demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "warehouse.duckdb"
    shutil.copy(demo.settings.home.warehouse_path, file)
    warehouse = Warehouse(database=str(file))
    sums: Any = what_adds_up_adds_up
    clicks: Any = clicks_are_those_of_the_days
    assert sums(warehouse).passed and clicks(warehouse).passed
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            "UPDATE mart.kpi_report SET value = value + 1 WHERE kpi = 'Seats' AND entity_type = 'segment'"
        )
        connection.execute("UPDATE core.kpi_values SET clicks = clicks + 1")
    assert not sums(warehouse).passed
    assert not clicks(warehouse).passed


def test_check_sources_notes_members_that_the_reference_does_not_list(tmp_path: Path) -> None:
    world = a_world([("a", "p", "u", MONDAY, 1)], MONDAY, MONDAY + timedelta(weeks=2), [subscription("a", "p", MONDAY)])
    (tmp_path / "accounts.csv").write_text("account_id,name\na,Town A\n")
    columns = {"account_id": "account_id", "account_name": "name"}
    settings = settings_of(world, tmp_path, accounts={"path": "accounts.csv", "format": "csv", "columns": columns})
    groups = GroupSettings(accounts={"Pilots": ["a", "Town A"]})
    notes = check_sources(settings.model_copy(update={"groups": groups})).notes
    (note,) = [note for note in notes if note.startswith("groups")]
    assert note.startswith("groups.accounts.Pilots: sources.accounts does not list 'Town A'")


def test_the_sheet_is_made_of_its_texts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of its own SQL could change, and no month was made again."""
    english = report.values_of_sheet()
    assert english["text__kpi_sheet__week_of"] == "week of {0}"
    monkeypatch.setenv("USAGE_LANGUAGE", "es")
    spanish = report.values_of_sheet()
    assert spanish.keys() == english.keys()
    assert {name for name in english if spanish[name] != english[name]} >= {
        *("text__kpi_sheet__week_of", "words__kpi_period", "date_format", "separators")
    }
