"""Activity over a whole fleet: subscriptions to subscription periods, subscription weeks, states, growth, in one run.
Part of `make benchmark`.

3,000 accounts that own all 20 applications over 104 weeks: 6.2 million subscribed weeks, more than any real fleet of
that size has.
"""

import time
from datetime import date

import duckdb

from usage_pipeline.config.settings import Settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.resources import warehouse_of
from usage_pipeline_tests.support.histories import TABLES, make_table


def measure(settings: Settings, accounts: int = 3000, applications: int = 20, weeks: int = 104) -> dict[str, float]:
    """Seconds of each table, on usage in two thirds of all weeks."""
    warehouse = warehouse_of(settings.home, settings.ingest.wait_seconds)
    with warehouse.get_connection() as connection:
        write_accounts(connection, accounts, applications, weeks)
    values = sql_values(settings) | {"as_of_day": date(2025, 12, 31)}
    seconds = {}
    for table in TABLES:
        started = time.perf_counter()
        with warehouse.get_connection() as connection:
            make_table(connection, table, settings, values)
        seconds[table] = time.perf_counter() - started
    return seconds


def write_accounts(connection: duckdb.DuckDBPyConnection, accounts: int, applications: int, weeks: int) -> None:
    """Subscriptions, weeks and weekly usage; seeded."""
    connection.execute("SELECT setseed(0.5)")
    connection.execute(
        "CREATE TABLE core.weeks AS SELECT DATE '2024-01-01' + CAST(7 * w AS INTEGER) AS week_start, "
        "TRUE AS has_arrived, TRUE AS is_complete, FALSE AS is_running FROM range($weeks) AS r (w)",
        {"weeks": weeks},
    )
    connection.execute(
        "CREATE TABLE ref.subscriptions AS SELECT 'account_' || a AS account_id, 'application_' || p AS application, "
        "DATE '2023-06-01' AS start_date, CAST(NULL AS DATE) AS notice_date, "
        "CASE WHEN random() < 0.15 THEN DATE '2024-04-01' + CAST(700 * random() AS INTEGER) END AS end_date, "
        "'cancelled' AS end_reason, "
        "CAST(NULL AS DATE) AS renewal_date, 5::BIGINT AS seats, 100.0::DOUBLE AS annual_value "
        "FROM range($accounts) AS a (a), range($applications) AS p (p)",
        {"accounts": accounts, "applications": applications},
    )
    connection.execute("CREATE TABLE ref.subscriptions_rejected AS FROM ref.subscriptions LIMIT 0")
    connection.execute(
        "CREATE TABLE core.weekly_usage AS SELECT week_start, 'account_' || a AS account_id, "
        "'application_' || p AS application, CAST(1 + 40 * random() AS BIGINT) AS clicks, "
        "0::BIGINT AS records_created, 3::BIGINT AS active_users, 5::BIGINT AS source_rows, "
        "week_start AS first_day, week_start + 4 AS last_day "
        "FROM core.weeks, range($accounts) AS a (a), range($applications) AS p (p) "
        "WHERE random() < 0.67",
        {"accounts": accounts, "applications": applications},
    )
