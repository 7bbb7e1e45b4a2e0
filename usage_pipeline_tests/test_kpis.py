"""The KPI sheet: every value against raw files read with plain Python, and what must hold whatever the lake."""

import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from usage_pipeline.config import GroupSettings, Settings, load_settings
from usage_pipeline.lib import kpi_sheet
from usage_pipeline.lib.contract import SUBSCRIPTIONS
from usage_pipeline.lib.kpis import KpiCatalogue, read_kpis
from usage_pipeline.lib.sql import load_sql, run_sql
from usage_pipeline.lib.usage_states import replace_usage_states
from usage_pipeline.lib.values import sql_values
from usage_pipeline_tests import kpi_oracle
from usage_pipeline_tests.conftest import Demo, write_config
from usage_pipeline_tests.kpi_oracle import World

MONTHLY = ["month", "3 months", "6 months", "12 months", "year to date"]


def plain(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries, days as dates, and what is absent as None."""
    return [
        {k: None if pd.isna(v) else v.date() if isinstance(v, pd.Timestamp) else v for k, v in row.items()}
        for row in rows.to_dict("records")
    ]


def world_of(demo: Demo) -> World:
    """What lies in the demo's lake, and what was issued."""
    lake, settings = demo.folder / "lake", demo.settings
    rows = demo.raw()
    rows = rows[rows["event_time"] >= pd.Timestamp(settings.window_start)].assign(day=rows["event_time"].dt.date)
    subscriptions = pd.read_csv(
        lake / "subscriptions.csv", parse_dates=["start_date", "notice_date", "end_date", "renewal_date"]
    )
    accounts = pd.read_csv(lake / "accounts.csv").rename(columns={"account_name": "account"})
    weeks = [settings.window_start + timedelta(weeks=n) for n in range(settings.lookback_weeks + 1)]
    risks = {}
    for file in (settings.ledger_dir / "scores").glob("*.parquet"):
        scores = pd.read_parquet(file)
        listed = scores[scores["is_listed"] & scores["application"].notna()]
        risks[date.fromisoformat(file.stem)] = set(zip(listed["account_id"], listed["application"], strict=True))
    return World(
        rows=rows,
        subscriptions=plain(subscriptions),
        accounts=accounts,
        applications=pd.read_csv(lake / "applications.csv"),
        weeks={week: week + timedelta(8) <= settings.as_of_day for week in weeks},
        as_of=settings.as_of_day,
        groups=settings.groups,
        risks=risks,
    )


def read_sheet(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    return connection.execute("FROM mart.kpi_sheet").df()


@pytest.fixture(scope="module")
def sheet(demo: Demo) -> Iterator[pd.DataFrame]:
    connection = duckdb.connect(str(demo.warehouse.resolve()), read_only=True)
    yield read_sheet(connection)
    connection.close()


def differences(sheet: pd.DataFrame, world: World) -> list[Any]:
    """Rows that are missing, too many or not what the raw rows give; at most twenty."""
    expected = kpi_oracle.sheet_of(world)
    columns = ["value", "value_year_ago", "value_before", "active_accounts"]
    keys = zip(
        *(sheet[c] for c in ("kpi", "entity_type", "entity_key", "kpi_period")),
        sheet["reference_month"].dt.date,
        strict=True,
    )
    numbers = sheet[[*columns, "is_complete_period"]].astype(float).to_numpy()
    found = dict(zip(keys, numbers, strict=True))
    wrong: list[Any] = [("missing", key) for key in expected.keys() - found.keys()]
    wrong += [("too many", key) for key in found.keys() - expected.keys()]
    for key in expected.keys() & found.keys():
        row = expected[key]
        wanted = np.array([np.nan if row[c] is None else row[c] for c in [*columns, "is_complete"]], dtype=float)
        if not np.allclose(found[key], wanted, rtol=1e-12, atol=1e-9, equal_nan=True):
            wrong.append((key, found[key], wanted))
    return sorted(wrong, key=str)[:20]


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
    """What adds up gives the value of all, over whatever parts of all."""
    for kpi in (kpi for kpi in read_kpis().kpis if kpi.adds_up != "never"):
        for period in ("week", *MONTHLY):
            values = wide(sheet, kpi.title, period)
            if values.empty:
                continue
            sums = values.groupby("entity_type").sum(min_count=1)
            parts = ["segment", "region", "owner", "application", "application type"]
            for entity_type in parts if period == "week" else [*parts, "account"]:
                assert np.allclose(sums.loc[entity_type].fillna(0), sums.loc["all"].fillna(0)), (kpi.name, period)


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
    assert_series = pd.testing.assert_series_equal
    for suffix, other in (("", "value_year_ago"), ("_before", "value_before")):
        difference = sheet["value"] - sheet[other]
        assert_series(sheet[f"difference{suffix}"], difference, check_names=False)
        assert_series(sheet[f"percent{suffix}"], difference / sheet[other].replace(0, np.nan), check_names=False)
    kpis = {kpi.title: kpi for kpi in read_kpis().kpis}
    averaged = sheet["kpi"].map({title: kpi.per_active_account for title, kpi in kpis.items()})
    average = (sheet["value"] / sheet["active_accounts"].replace(0, np.nan)).where(averaged)
    assert_series(sheet["per_active_account"].astype(float), average.astype(float), check_names=False)
    sign = sheet["kpi"].map({title: {"up": 1, "down": -1}[kpi.good] for title, kpi in kpis.items()})
    moved = np.sign(sheet["difference"]) * sign
    assert (sheet["change_is"] == moved.map({1: "better", -1: "worse", 0: "no change"}).fillna("not compared")).all()
    floor = sheet["kpi"].map({title: kpi.big_change.floor for title, kpi in kpis.items()})
    share = sheet["kpi"].map({title: kpi.big_change.share for title, kpi in kpis.items()})
    size = sheet["difference"].abs()
    assert (sheet["is_big_change"] == ((size >= floor) & (size >= share * sheet["value_year_ago"].abs()))).all()
    assert (sheet["big_change"].notna() == sheet["is_big_change"]).all()
    assert sheet.loc[~sheet["is_complete_period"], ["value_year_ago", "value_before"]].isna().all(axis=None)


CHECKS = [check_distinct, check_partitions, check_ratios, check_years, check_comparisons]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_of_the_demo_holds(sheet: pd.DataFrame, check: Any) -> None:
    check(sheet)


# ------------------------------------------------------------- small worlds, through the product's own SQL

ACCOUNTS = pd.DataFrame(
    {
        "account_id": ["a", "b", "c"],
        "account": ["Town A", "City B", "City C"],
        "segment": ["Town", "City", "City"],
        "region": ["West", "West", "East"],
        "owner": ["Ana", "Ben", "Ana"],
    }
)
APPLICATIONS = pd.DataFrame(
    {
        "application": ["p", "q", "r"],
        "application_name": ["Permits", "Queues", "Roads"],
        "application_type": ["Front", "Front", "Back"],
    }
)
GROUPS = GroupSettings(accounts={"Pilots": ["a", "c"]}, applications={"Field": ["p", "r"], "Rest": ["q"]})


def a_world(
    events: list[tuple[str, str, str | None, date, int]],
    first_week: date,
    as_of: date,
    subscriptions: list[dict[str, Any]] | None = None,
    not_arrived: tuple[date, ...] = (),
    **changes: Any,
) -> World:
    """Rows of use (account, application, user, day, clicks) of a lake that begins on a Monday."""
    rows = pd.DataFrame(events, columns=["account_id", "application", "user_id", "day", "clicks"])
    mondays = [first_week + timedelta(weeks=n) for n in range((as_of - first_week).days // 7 + 1)]
    weeks = {week: week + timedelta(8) <= as_of and week not in not_arrived for week in mondays}
    rows = rows[[day - timedelta(day.weekday()) not in not_arrived for day in rows["day"]]]
    return World(
        rows=rows.assign(records_created=rows["clicks"] // 2),
        subscriptions=subscriptions or [],
        accounts=ACCOUNTS,
        applications=APPLICATIONS,
        weeks=weeks,
        as_of=as_of,
        groups=GROUPS,
        **changes,
    )


def settings_of(world: World, folder: Path, **sources: Any) -> Settings:
    columns = {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks", "records_created")}
    if not world.has_days:
        del columns["event_time"]
    contracts = {c: c for c in SUBSCRIPTIONS.names}
    described = {
        "usage": {"path": "lake", "partitioned": True, "columns": columns},
        "subscriptions": {"path": "subscriptions.csv", "format": "csv", "columns": contracts},
    }
    weeks = len(world.weeks) - 1
    return load_settings(
        write_config(folder, as_of=world.as_of.isoformat(), lookback_weeks=weeks, sources=described | sources)
    )


def computed(world: World, settings: Settings, catalogue: KpiCatalogue | None = None) -> duckdb.DuckDBPyConnection:
    """The sheet of a world, by the product's own SQL from weekly and monthly users on."""
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA ref; CREATE SCHEMA core; CREATE SCHEMA mart; SET threads = 1")
    days = pd.to_datetime(world.rows["day"])
    rows = world.rows.assign(day=days, week_start=days - pd.to_timedelta(days.dt.weekday, "D"))
    arrived = [week for week, is_complete in world.weeks.items() if is_complete or week == settings.running_week]
    manifests = pd.DataFrame({"week": pd.to_datetime(arrived)})
    subscriptions = pd.DataFrame(world.subscriptions, columns=SUBSCRIPTIONS.names)
    risks = pd.DataFrame(
        [("low use", pd.Timestamp(week), *pair, True) for week, pairs in world.risks.items() for pair in pairs],
        columns=["target", "as_of_week", "account_id", "application", "is_listed"],
    )
    typed = ", ".join(f"CAST({c.name} AS {c.type}) AS {c.name}" for c in SUBSCRIPTIONS.columns)
    by_user = "account_id, application, user_id"
    frames = {"accounts": world.accounts, "applications": world.applications, "rows": rows, "risks": risks}
    for name, frame in (frames | {"subscriptions": subscriptions, "delivered": manifests}).items():
        connection.register(name, frame)
    for table, sql in {
        "core.account_names": "FROM accounts",
        "core.application_names": "SELECT application AS application_key, application_name AS application, "
        "application_type FROM applications",
        "ref.subscriptions": f"SELECT {typed} FROM subscriptions",
        "core.issued_scores": "SELECT target, CAST(as_of_week AS DATE) AS as_of_week, CAST(account_id AS VARCHAR) AS "
        "account_id, CAST(application AS VARCHAR) AS application, CAST(is_listed AS BOOLEAN) AS is_listed FROM risks",
        "core.weekly_users": f"SELECT CAST(week_start AS DATE) AS week_start, {by_user}, sum(clicks) AS clicks, "
        "sum(records_created) AS records_created, count(*) AS source_rows, CAST(min(day) AS DATE) AS first_day, "
        "CAST(max(day) AS DATE) AS last_day FROM rows GROUP BY ALL",
        "core.monthly_users": f"SELECT CAST(date_trunc('month', day) AS DATE) AS month_start, {by_user}, "
        f"sum(clicks) AS clicks, sum(records_created) AS records_created FROM rows WHERE {world.has_days} GROUP BY ALL",
        "core.weekly_usage": "SELECT week_start, account_id, application, sum(clicks) AS clicks, sum(records_created) "
        "AS records_created, count(user_id) AS active_users, min(first_day) AS first_day, max(last_day) AS last_day "
        "FROM core.weekly_users GROUP BY ALL",
    }.items():
        connection.execute(f"CREATE TABLE {table} AS {sql}")
    connection.execute(
        "CREATE TEMP TABLE manifests AS SELECT CAST(week AS DATE) AS week, 0 AS files_set_aside, 1 AS source_rows, "
        "CAST(NULL AS DATE) AS read_on, 0 AS rows_rejected FROM delivered"
    )
    values = sql_values(settings)
    for folder, names in {
        "usage": ("weeks", "months"),
        "activity": ("contract_spells", "pairs", "usage_grid", "usage_states", "growth_events"),
    }.items():
        for name in names:
            if name == "usage_states":
                replace_usage_states(connection, settings.activity)
            else:
                run_sql(connection, f"CREATE TABLE core.{name} AS {load_sql(folder, name)}", values)
    catalogue = catalogue or read_kpis()
    kpi_sheet.replace_members(connection, world.groups)
    for name in ("kpi_steps", "kpi_periods"):
        run_sql(connection, f"CREATE TABLE core.{name} AS {load_sql('kpis', name)}", values)
    kpi_sheet.replace_values(connection, settings, catalogue)
    kpi_sheet.replace_sheet(connection, catalogue)
    return connection


def contract(
    account: str, application: str | None, start: date, end: date | None = None, **told: Any
) -> dict[str, Any]:
    """A contract row as delivered."""
    row: dict[str, Any] = dict.fromkeys(SUBSCRIPTIONS.names)
    return row | {"account_id": account, "application": application, "start_date": start, "end_date": end} | told


def sheet_of(world: World, folder: Path, **sources: Any) -> pd.DataFrame:
    return read_sheet(computed(world, settings_of(world, folder, **sources)))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A handful of rows and contracts over a year and a half; sometimes a week that never arrived."""
    first = date(2023, 10, 2) + timedelta(weeks=draw(st.integers(0, 140)))
    length = 80
    as_of = first + timedelta(weeks=length - 1, days=draw(st.integers(0, 6)))
    day = st.integers(0, (as_of - first).days - 9).map(lambda n: first + timedelta(n))
    event = st.tuples(
        st.sampled_from("abc"), st.sampled_from("pqr"), st.sampled_from(["u", "v", "w", None]), day, st.integers(0, 30)
    )
    seats = {"seats": st.sampled_from([None, 1, 5]), "annual_value": st.sampled_from([None, 100.0, 999.99])}
    row = st.builds(
        lambda account, application, start, days, reason, told: contract(
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
@hypothesis_settings(deadline=None, max_examples=25, phases=[Phase.reuse, Phase.generate])
@given(worlds())
def test_whatever_the_lake_it_is_that_of_the_raw_rows_and_adds_up(world: World) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sheet = sheet_of(world, Path(folder))
    assert differences(sheet, world) == []
    for check in CHECKS:
        check(sheet)
