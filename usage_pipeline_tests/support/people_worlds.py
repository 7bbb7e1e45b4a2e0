"""Small worlds of accounts, subscriptions and single events, taken through the product's SQL up to people and peers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas as pd

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.config.source_schemas import ACCOUNTS, APPLICATIONS, SUBSCRIPTIONS, SourceSchema
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline_tests.support.histories import TABLES, make_table
from usage_pipeline_tests.support.kpi_worlds import subscription
from usage_pipeline_tests.support.lakes import write_config

__all__ = ["Event", "PeopleWorld", "computed", "rows_of", "settings_of", "subscription"]

AS_OF = date(2025, 3, 5)  # a Wednesday; the newest complete week is that of 24 February
NEWEST = date(2025, 2, 24)
WEEKS = 30


class Event(NamedTuple):
    """Clicks of one user on one day; no user where none was delivered."""

    account: str
    application: str
    user: str | None
    day: date
    clicks: int


@dataclass
class PeopleWorld:
    """Raw rows as they come; `incomplete` are weeks (Mondays) that may not be judged by."""

    events: list[Event] = field(default_factory=list)
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    accounts: list[dict[str, Any]] = field(default_factory=list)
    incomplete: set[date] = field(default_factory=set)
    has_users: bool = True

    def but(self, **changes: Any) -> "PeopleWorld":
        return replace(self, **changes)

    @property
    def complete(self) -> list[date]:
        """Complete weeks, newest first."""
        return [week for n in range(WEEKS) if (week := NEWEST - timedelta(weeks=n)) not in self.incomplete]


def monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def settings_of(folder: Path, **changes: Any) -> Settings:
    return load_settings(write_config(folder, **changes))


def computed(world: PeopleWorld, settings: Settings) -> duckdb.DuckDBPyConnection:
    """The tables of people of a world, by the product's own SQL from weekly users on."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1; CREATE SCHEMA ref; CREATE SCHEMA core; CREATE SCHEMA mart")
    _deliver(connection, "accounts", ACCOUNTS, world.accounts)
    _deliver(connection, "subscriptions", SUBSCRIPTIONS, world.subscriptions)
    _deliver(connection, "applications", APPLICATIONS, [])
    connection.execute("CREATE TABLE ref.subscriptions_rejected AS FROM ref.subscriptions LIMIT 0")
    frame = pd.DataFrame(world.events, columns=Event._fields)
    frame = frame.astype({"day": "datetime64[ns]", "clicks": "int64"})
    weeks = pd.DataFrame({"week_start": [*reversed([NEWEST - timedelta(weeks=n) for n in range(WEEKS)])]})
    connection.register("events", frame)
    connection.register("spine", weeks.assign(bad=weeks["week_start"].isin(world.incomplete)))
    who = "CAST(account AS VARCHAR) AS account_id, CAST(application AS VARCHAR) AS application"
    user = 'CAST("user" AS VARCHAR)' if world.has_users else "CAST(NULL AS VARCHAR)"
    for table, sql in {
        "core.weeks": "SELECT CAST(week_start AS DATE) AS week_start, TRUE AS has_arrived, NOT bad AS is_complete, "
        "FALSE AS is_running FROM spine UNION ALL SELECT DATE '2025-03-03', TRUE, FALSE, TRUE",
        "core.weekly_users": f"SELECT CAST(date_trunc('week', day) AS DATE) AS week_start, {who}, {user} AS user_id, "
        "CAST(sum(clicks) AS BIGINT) AS clicks, CAST(NULL AS BIGINT) AS records_created, count(*) AS source_rows, "
        "CAST(min(day) AS DATE) AS first_day, CAST(max(day) AS DATE) AS last_day FROM events GROUP BY ALL",
        "core.weekly_usage": "SELECT week_start, account_id, application, CAST(sum(clicks) AS BIGINT) AS clicks, "
        "CAST(NULL AS BIGINT) AS records_created, count(user_id) AS active_users, sum(source_rows) AS source_rows, "
        "min(first_day) AS first_day, max(last_day) AS last_day FROM core.weekly_users GROUP BY ALL",
        "core.account_days": "SELECT account AS account_id, CAST(day AS DATE) AS day, sum(clicks) AS clicks "
        "FROM events GROUP BY ALL",
    }.items():
        connection.execute(f"CREATE TABLE {table} AS {sql}")
    values = sql_values(settings) | {"has_users": world.has_users}
    for folder, schema, names in (
        ("defs/usage", "core", ("account_names", "application_names")),
        ("", "", TABLES),
        ("defs/activity", "core", ("account_subscriptions", "usage_trends")),
        ("defs/activity", "mart", ("accounts_summary",)),
        ("defs/health", "core", ("health_inputs",)),
        ("defs/people", "mart", ("subscription_users", "onboarding")),
        ("defs/people", "core", ("peer_groups",)),
        ("defs/people", "mart", ("peers", "expansion")),
    ):
        for name in names:
            if folder:
                run_sql(connection, f"CREATE TABLE {schema}.{name} AS {load_sql(folder, name)}", values)
            else:
                make_table(connection, name, settings, values)
    return connection


def _deliver(
    connection: duckdb.DuckDBPyConnection, name: str, schema: SourceSchema, rows: Sequence[dict[str, Any]]
) -> None:
    connection.register("delivered", pd.DataFrame(rows, columns=schema.names, dtype=object))
    typed = ", ".join(f"CAST({c.name} AS {c.type}) AS {c.name}" for c in schema.columns)
    connection.execute(f"CREATE TABLE ref.{name} AS SELECT {typed} FROM delivered")
    connection.unregister("delivered")


def rows_of(connection: duckdb.DuckDBPyConnection, table: str) -> list[dict[str, Any]]:
    """Rows of a table as dictionaries; days as dates."""
    found = connection.execute(f"FROM {table}")
    names = [column[0] for column in found.description]
    plain = lambda v: v.date() if hasattr(v, "hour") else v  # noqa: E731
    return [dict(zip(names, map(plain, row), strict=True)) for row in found.fetchall()]
