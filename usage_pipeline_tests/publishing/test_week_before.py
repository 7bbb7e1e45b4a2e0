"""What tiles say, now and a week before: of the build that was shown then, or of none."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from usage_pipeline.core.sql import load_sql
from usage_pipeline.core.tables import METRICS, TABLES, schema_violation
from usage_pipeline.publishing.week_before import SHOWN, both_weeks

NEWEST = date(2026, 11, 9)
BEFORE = NEWEST - timedelta(days=7)
_NAMES = {"account_id": "A1", "account": "Town of A1", "application_key": "permits", "application": "Permits"}
Rows = dict[str, list[dict[str, Any]]]


def state(usage: str | None, value: float | None = 100.0, application: str = "permits") -> dict[str, Any]:
    """An account x application as a build shows it; None: its subscription has ended."""
    running = "active subscription" if usage else "ended"
    return _NAMES | {
        "application_key": application,
        "subscription_state": running,
        "usage_state": usage,
        "annual_value": value,
    }


@pytest.fixture
def connection(tmp_path: Path) -> Any:
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as made:
        made.execute("CREATE SCHEMA mart; CREATE SCHEMA core")
        made.execute(
            "CREATE TABLE core.account_names AS SELECT 'A1' AS account_id, 'Town of A1' AS account, 'Town' AS segment, "
            "'West' AS region, 'Dana' AS owner"
        )
        made.execute(
            "CREATE TABLE core.application_names AS SELECT key AS application_key, key AS application, 'x' AS "
            "application_type FROM (VALUES ('permits'), ('tax')) AS keys (key)"
        )
        yield made


def fill(connection: Any, rows: Rows, schema: str = "mart") -> None:
    for table in dict.fromkeys(table for table, _ in SHOWN.values()):
        columns = ", ".join(f"{column.name} {column.type}" for column in TABLES[table].columns)
        connection.execute(f"CREATE OR REPLACE TABLE {schema}.{table} ({columns})")
        for row in rows.get(table, []):
            names = [name for name in row if name in TABLES[table].column_names]
            places = ", ".join("?" for _ in names)
            connection.execute(
                f"INSERT INTO {schema}.{table} ({', '.join(names)}) VALUES ({places})", [row[n] for n in names]
            )


def keep(history: Path, number: int, newest_week: date, rows: Rows) -> None:
    """Small tables of a build as they are kept."""
    folder = history / "builds" / f"{number:05d}-{newest_week + timedelta(days=13)}-abcdef01"
    folder.mkdir(parents=True)
    with duckdb.connect() as made:
        made.execute("CREATE SCHEMA kept")
        fill(made, rows, "kept")
        for table, _ in SHOWN.values():
            made.execute(f"COPY kept.{table} TO '{folder / table}.parquet' (FORMAT parquet)")
        made.execute(
            f"COPY (SELECT TIMESTAMP '{newest_week}' AS newest_week) TO '{folder}/build.parquet' (FORMAT parquet)"
        )


def figures(connection: Any, history: Path, name: str, metric: str) -> list[Any]:
    """A metric of a tile, week by week as it is drawn."""
    with both_weeks(connection, history, NEWEST):
        connection.execute(f"CREATE OR REPLACE TABLE mart.{name} AS {load_sql('defs/publish', name)}")
    assert schema_violation(connection, TABLES[name]) is None
    expression = METRICS[name][metric].expression
    found = connection.execute(f"SELECT {expression} FROM mart.{name} GROUP BY as_of_week ORDER BY as_of_week")
    return [row[0] for row in found.fetchall()]


def account(**other: Any) -> dict[str, Any]:
    return _NAMES | {"applications_owned": 2, "applications_used": 1, "annual_value": 100.0} | other


def test_a_tile_stands_beside_what_was_shown_last_in_the_week_before(connection: Any, tmp_path: Path) -> None:
    now = [state("inactive"), state("inactive", application="tax")]
    fill(connection, {"accounts_summary": [account()], "subscription_overview": now})
    keep(tmp_path, 1, BEFORE, {"accounts_summary": [account()], "subscription_overview": []})
    keep(tmp_path, 2, BEFORE, {"accounts_summary": [account()], "subscription_overview": [state("inactive")]})
    keep(tmp_path, 3, NEWEST, {"accounts_summary": [account()], "subscription_overview": now})
    assert figures(connection, tmp_path, "application_figures", "inactive") == [1, 2]
    assert figures(connection, tmp_path, "application_figures", "inactive_arr") == [100, 200]


def test_a_build_of_two_weeks_ago_is_no_week_before(connection: Any, tmp_path: Path) -> None:
    rows = {"accounts_summary": [account()], "subscription_overview": [state("inactive")]}
    fill(connection, rows)
    keep(tmp_path, 1, BEFORE - timedelta(days=7), rows)
    assert figures(connection, tmp_path, "application_figures", "inactive") == [1]
    assert figures(connection, tmp_path / "nothing is kept", "account_figures", "value") == [100]


def test_what_is_gone_now_counts_as_0_and_does_not_leave_last_week_as_the_newest(
    connection: Any, tmp_path: Path
) -> None:
    """A tile draws the last figure that is known: one of last week would be taken for the one of now."""
    fill(connection, {"accounts_summary": [account(annual_value=None)], "subscription_overview": [state(None)]})
    before = {
        "accounts_summary": [account()],
        "subscription_overview": [state("inactive")],
        "account_health": [_NAMES | {"application_key": "all", "health": 60.0}],
        "usage_risks": [_NAMES | {"target": "churn"}],
    }
    keep(tmp_path, 1, BEFORE, before)
    assert figures(connection, tmp_path, "application_figures", "inactive") == [1, 0]
    assert figures(connection, tmp_path, "application_figures", "inactive_arr") == [100, 0]
    assert figures(connection, tmp_path, "application_figures", "churn_risks_sum") == [1, 0]
    assert figures(connection, tmp_path, "account_figures", "health_now") == [None, None]
    assert figures(connection, tmp_path, "account_figures", "value") == [None, None]


def test_nothing_is_compared_with_0(connection: Any, tmp_path: Path) -> None:
    """From 0 to 5 there is no percentage, and Superset would write 0 %."""
    fill(connection, {"accounts_summary": [account()], "subscription_overview": [state("inactive")]})
    keep(tmp_path, 1, BEFORE, {"accounts_summary": [account()], "subscription_overview": [state("active")]})
    assert figures(connection, tmp_path, "application_figures", "inactive") == [None, 1]


def test_arr_that_is_not_delivered_is_not_0(connection: Any, tmp_path: Path) -> None:
    rows = {"accounts_summary": [account(annual_value=None)], "subscription_overview": [state("inactive", None)]}
    fill(connection, rows)
    keep(tmp_path, 1, BEFORE, rows)
    assert figures(connection, tmp_path, "application_figures", "inactive_arr") == [None, None]
    assert figures(connection, tmp_path, "account_figures", "arr_renewing_30_days") == [None, None]


def test_a_column_that_the_older_build_lacks_is_empty(connection: Any, tmp_path: Path) -> None:
    users = [_NAMES | {"application_key": "all", "seats": 10, "seat_utilization": 0.5}]
    fill(connection, {"accounts_summary": [account()], "subscription_users": users})
    keep(tmp_path, 1, BEFORE, {"accounts_summary": [account()], "subscription_users": users})
    (file,) = tmp_path.glob("builds/*/subscription_users.parquet")
    with duckdb.connect() as made:
        made.execute(f"CREATE TABLE older AS SELECT * EXCLUDE (seats) FROM '{file}'")
        made.execute(f"COPY older TO '{file}' (FORMAT parquet)")
    assert figures(connection, tmp_path, "account_figures", "seats_used") == [None, 0.5]
