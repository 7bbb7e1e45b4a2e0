"""What tiles compare with: small tables of now beside those of the build that was shown a week before.

Belongs here: bringing both into tables of one connection. Does not: what is made of them (`defs/publish/sql`), nor
keeping them (`kept_tables.py`). A week that no build was shown of is left out: a change is one from week to week.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import duckdb

from usage_pipeline.core.sql import literal
from usage_pipeline.core.tables import TABLES
from usage_pipeline.core.weeks import WEEK
from usage_pipeline.publishing.kept_tables import build_of_week

# the table that a connection has while it compares -> the published one, and the columns that are read of it
SHOWN = {
    "shown_accounts": ("accounts_summary", ("account_id", "applications_owned", "applications_used", "annual_value")),
    "shown_health": ("account_health", ("account_id", "application_key", "health")),
    "shown_users": ("subscription_users", ("account_id", "application_key", "seat_utilization", "seats")),
    "shown_renewals": ("renewals", ("account_id", "days_to_renewal", "arr_renewing")),
    "shown_risks": ("usage_risks", ("account_id", "application_key", "target")),
    "shown_subscriptions": (
        "subscription_overview",
        ("account_id", "application_key", "subscription_state", "usage_state", "annual_value"),
    ),
}
COLUMNS = {name: ("as_of_week", *columns) for name, (_, columns) in SHOWN.items()}


@contextmanager
def both_weeks(
    connection: duckdb.DuckDBPyConnection, history_dir: Path, newest_week: date | None
) -> Iterator[str | None]:
    """Has the tables of SHOWN, of the newest complete week and the one before, for its body; gives the latter's build.

    Their column `as_of_week` is the Monday of the week. A column that the older build lacks is empty; without a
    complete week there are no rows. The caller holds `history_locked`.
    """
    before = newest_week - WEEK if newest_week else None
    kept = build_of_week(history_dir, before) if before else None
    for name, (table, columns) in SHOWN.items():
        types = {column.name: column.type for column in TABLES[table].columns}
        typed = ", ".join(f"{column} {types[column]}" for column in columns)
        connection.execute(f"CREATE TEMP TABLE {name} (as_of_week DATE, {typed})")
        if newest_week:
            _add(connection, name, newest_week, f"mart.{table}", columns)
        if kept and before and (file := kept / f"{table}.parquet").exists():
            source = f"read_parquet({literal(file)})"
            there = {column for column, *_ in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
            _add(connection, name, before, source, tuple(column for column in columns if column in there))
    yield kept.name if kept else None
    for name in SHOWN:
        connection.execute(f"DROP TABLE temp.{name}")


def _add(connection: duckdb.DuckDBPyConnection, name: str, week: date, source: str, columns: tuple[str, ...]) -> None:
    connection.execute(
        f"INSERT INTO {name} BY NAME SELECT CAST($week AS DATE) AS as_of_week, {', '.join(columns)} FROM {source}",
        {"week": week},
    )
