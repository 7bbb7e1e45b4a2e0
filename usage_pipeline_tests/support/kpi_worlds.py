"""Small worlds whose KPI sheet is computed by the product's own SQL, from weekly and monthly users on."""

from collections.abc import Collection
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from usage_pipeline.activity.account_application_numbers import no_numbers, number
from usage_pipeline.activity.usage_states import replace_usage_states
from usage_pipeline.config.settings import GroupSettings, Settings, load_settings
from usage_pipeline.config.source_schemas import SUBSCRIPTIONS
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.kpis import report
from usage_pipeline.kpis.catalogue import KpiCatalogue, read_kpis
from usage_pipeline_tests.support import kpi_oracle
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.kpi_oracle import World
from usage_pipeline_tests.support.lakes import write_config

MONDAY = date(2023, 10, 2)
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
    subscriptions = {c: c for c in SUBSCRIPTIONS.names}
    described = {
        "usage": {"path": "lake", "partitioned": True, "columns": columns},
        "subscriptions": {"path": "subscriptions.csv", "format": "csv", "columns": subscriptions},
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
    arrived = [week for week, is_complete in world.weeks.items() if is_complete or week == settings.clock.running_week]
    manifests = pd.DataFrame({"week": pd.to_datetime(arrived)})
    subscriptions = pd.DataFrame(world.subscriptions, columns=SUBSCRIPTIONS.names)
    risks = pd.DataFrame(
        [
            ("low usage", pd.Timestamp(week), *account_application, True, True)
            for week, account_applications in world.risks.items()
            for account_application in account_applications
        ],
        columns=["target", "as_of_week", "account_id", "application", "is_listed", "has_signal"],
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
        "core.score_snapshots": "SELECT target, CAST(as_of_week AS DATE) AS as_of_week, CAST(account_id AS VARCHAR) AS "
        "account_id, CAST(application AS VARCHAR) AS application, CAST(is_listed AS BOOLEAN) AS is_listed, "
        "CAST(has_signal AS BOOLEAN) AS has_signal FROM risks",
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
    connection.execute("CREATE TABLE ref.subscriptions_rejected AS FROM ref.subscriptions LIMIT 0")
    connection.execute(
        "CREATE TEMP TABLE manifests AS SELECT CAST(week AS DATE) AS week, 0 AS files_quarantined, 1 AS source_rows, "
        "CAST(NULL AS DATE) AS read_on, 0 AS rows_rejected FROM delivered"
    )
    values = sql_values(settings)
    for folder, names in {
        "defs/usage": ("weeks", "months"),
        "activity": ("subscription_periods",),
        "defs/activity": (
            "subscription_terms",
            "account_applications",
            "subscription_weeks",
            "usage_states",
            "growth_events",
        ),
    }.items():
        for name in names:
            if name == "usage_states":
                replace_usage_states(connection, settings.activity)
            elif name == "account_applications":
                number(connection, no_numbers())
            else:
                run_sql(connection, f"CREATE TABLE core.{name} AS {load_sql(folder, name)}", values)
    catalogue = catalogue or read_kpis()
    report.replace_members(connection, world.groups)
    for name in ("kpi_base_periods", "kpi_periods"):
        run_sql(connection, f"CREATE TABLE core.{name} AS {load_sql('defs/kpis', name)}", values)
    make_values(connection, settings, catalogue)
    report.replace_sheet(connection, catalogue)
    return connection


def make_values(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    catalogue: KpiCatalogue,
    periods: list[str] | None = None,
) -> None:
    with report.work_tables(connection):
        report.make_terms(connection)
        report.replace_values(connection, settings, catalogue, periods)


def subscription(
    account: str, application: str | None, start: date, end: date | None = None, **told: Any
) -> dict[str, Any]:
    """A subscription row as delivered."""
    row: dict[str, Any] = dict.fromkeys(SUBSCRIPTIONS.names)
    return row | {"account_id": account, "application": application, "start_date": start, "end_date": end} | told


def read_sheet(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    return connection.execute("FROM mart.kpi_report").df()


def sheet_of(world: World, folder: Path, **sources: Any) -> pd.DataFrame:
    return read_sheet(computed(world, settings_of(world, folder, **sources)))


def value(sheet: pd.DataFrame, kpi: str, entity: str, period: str, reference: str, column: str = "value") -> Any:
    """One cell; None where it is empty or the row is not there."""
    rows = sheet[
        (sheet["kpi"] == kpi)
        & (sheet["entity_key"] == entity)
        & (sheet["kpi_period"] == period)
        & (sheet["reference_month"] == pd.Timestamp(reference))
    ]
    return None if rows.empty or pd.isna(rows[column].item()) else rows[column].item()


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
    rows = rows[rows["event_time"] >= pd.Timestamp(settings.clock.window_start)].assign(day=rows["event_time"].dt.date)
    subscriptions = pd.read_csv(
        lake / "subscriptions.csv", parse_dates=["start_date", "notice_date", "end_date", "renewal_date"]
    )
    accounts = pd.read_csv(lake / "accounts.csv").rename(columns={"account_name": "account"})
    weeks = [settings.clock.window_start + timedelta(weeks=n) for n in range(settings.lookback_weeks + 1)]
    return World(
        rows=rows,
        subscriptions=plain(subscriptions),
        accounts=accounts,
        applications=pd.read_csv(lake / "applications.csv"),
        weeks={week: week + timedelta(8) <= settings.clock.as_of_day for week in weeks},
        as_of=settings.clock.as_of_day,
        groups=settings.groups,
        risks=risks_of(settings),
    )


def risks_of(settings: Settings) -> dict[date, set[kpi_oracle.Pair]]:
    """What was listed at risk in each week that scores were issued of."""
    risks = {}
    for file in (settings.home.history_dir / "scores").glob("*.parquet"):
        scores = pd.read_parquet(file)
        scores = scores[scores["application"].notna() & scores["has_signal"].astype(bool)]
        listed = scores[scores["is_listed"].astype(bool)]
        if len(scores):  # a week in which nothing was there to be scored, or to be listed by, says nothing about risk
            risks[date.fromisoformat(file.stem)] = set(zip(listed["account_id"], listed["application"], strict=True))
    return risks


def differences(sheet: pd.DataFrame, world: World, without: Collection[str] = ()) -> list[Any]:
    """Rows that are missing, too many or not what the raw rows give, of all KPIs but some; at most twenty."""
    expected = {key: row for key, row in kpi_oracle.sheet_of(world).items() if key[0] not in without}
    sheet = sheet[~sheet["kpi"].isin(list(without))]
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
    both = list(expected.keys() & found.keys())
    wanted = pd.DataFrame([expected[key] for key in both], columns=[*columns, "is_complete"]).astype(float).to_numpy()
    given = np.array([found[key] for key in both])
    unequal = ~np.isclose(given, wanted, rtol=1e-12, atol=1e-9, equal_nan=True).all(axis=1)
    wrong += [(both[n], given[n], wanted[n]) for n in np.flatnonzero(unequal)]
    return sorted(wrong, key=str)[:20]
