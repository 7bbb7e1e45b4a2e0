"""Usage: weekly usage from facts, names, and the marts that rank and compare it.

`weekly_usage` is partitioned: a run deletes its weeks and the two beside them (rows can come late into the folder
of the next week) and inserts them again, in one transaction. The marts are whole tables.

What is dated after `as_of` stays in the facts and is counted from its day on. A day that has come, or an `as_of` that
was moved back, loads the weeks that it touches again, whichever weeks the run is asked for.
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa

from usage_pipeline.config.settings import Settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.core.weeks import WEEK, contiguous_ranges, weeks_between
from usage_pipeline.defs.lineage import Step, column_lineage, deps_of
from usage_pipeline.defs.partitions import partition_weeks
from usage_pipeline.defs.tables import OWNERS, POOL, Cut, code_of, code_version, count_rows, sql_table
from usage_pipeline.ingestion.facts import facts_path, read_manifests
from usage_pipeline.resources import Warehouse

_FROM_FACTS = {
    "weekly_users": (
        "week_start DATE, account_id VARCHAR, application VARCHAR, user_id VARCHAR, clicks BIGINT, "
        "records_created BIGINT, source_rows BIGINT, first_day DATE, last_day DATE"
    ),
    "weekly_usage": (
        "week_start DATE, account_id VARCHAR, application VARCHAR, clicks BIGINT, records_created BIGINT, "
        "active_users BIGINT, source_rows BIGINT, first_day DATE, last_day DATE"
    ),
    "account_days": "account_id VARCHAR, day DATE, clicks BIGINT, source_rows BIGINT",
    # which facts file of each week the tables were made of
    "loaded_weeks": "week DATE, facts VARCHAR",
    "monthly_users": (
        "month_start DATE, account_id VARCHAR, application VARCHAR, user_id VARCHAR, clicks BIGINT, "
        "records_created BIGINT"
    ),
}


_QUERIES = ("weekly_users", "weekly_usage", "account_days", "monthly_users")


def weekly_usage_asset(weeks: dg.WeeklyPartitionsDefinition) -> dg.AssetsDefinition:
    step = Step(
        tables={"core.weekly_usage": "defs/usage/weekly_usage"},
        python={f"core.{table}": _names(columns) for table, columns in _FROM_FACTS.items() if table != "weekly_usage"},
        runs=[f"defs/usage/{table}" for table in _QUERIES],
        reads=["usage_facts"],
    )

    @dg.asset(
        key="weekly_usage",
        group_name="usage",
        kinds={"duckdb", "sql"},
        owners=OWNERS,
        deps=deps_of("weekly_usage", step),
        partitions_def=weeks,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=POOL,
        code_version=code_of("ingestion", "defs/usage"),
    )
    def weekly_usage(
        context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[Any]:
        """Clicks, records and active users of every account and application in every week that somebody came.

        Beside it, users by week and by calendar month: different people are counted, never added up.

        One row: account x application x week, by the date of use.
        """
        asked = partition_weeks(context)
        with warehouse.get_connection() as connection:
            loaded = load_weekly_usage(connection, settings, asked[0], asked[-1])
            rows = count_rows(connection, "core.weekly_usage")
        context.log.info(f"{rows:,} rows; of {len(asked)} weeks {len(loaded)} had other facts than the last time")
        return dg.MaterializeResult(
            metadata={"dagster/row_count": rows, "weeks": len(asked), "weeks_loaded": len(loaded)}
        )

    return weekly_usage


def _names(columns: str) -> tuple[str, ...]:
    return tuple(column.split()[0] for column in columns.split(", "))


def load_weekly_usage(connection: duckdb.DuckDBPyConnection, settings: Settings, first: date, last: date) -> list[date]:
    """Brings `core.weekly_users` and `core.weekly_usage` of the weeks from `first` to `last` (Mondays) up to date.

    `core.account_days`, and `core.monthly_users` of the calendar months that they lie in, as well. Weeks whose facts
    file is the one that was loaded the last time are left alone. Returns the weeks that were not.
    """
    make_tables(connection)
    known = dict(connection.execute("SELECT week, facts FROM core.loaded_weeks").fetchall())
    asked = weeks_between(first, last)
    other_days = [
        week for week, facts in known.items() if not facts.endswith(_days_counted(settings.clock.as_of_day, week))
    ]
    there = {
        week: _identity(settings.home.facts_dir, settings.clock.as_of_day, week)
        for week in sorted({*asked, *other_days})
    }
    changed = [week for week, facts in there.items() if known.get(week) != facts]
    for start, end in contiguous_ranges(changed):
        # a row can lie in the folder before or after its own week, so the weeks beside are loaded again as well
        load_weeks(connection, settings, start - WEEK, end + WEEK)
        load_days_and_months(connection, settings, start - WEEK, end + WEEK)
        span = {"first": start, "last": end}
        connection.execute("DELETE FROM core.loaded_weeks WHERE week BETWEEN $first AND $last", span)
    if changed:
        connection.executemany("INSERT INTO core.loaded_weeks VALUES (?, ?)", [[week, there[week]] for week in changed])
    return changed


def _identity(facts_dir: Path, as_of_day: date, week: date) -> str:
    """What tells one facts file of a week from the next, and its days that are counted from those that wait.

    Each file is put in place whole, so its inode is new.
    """
    facts = facts_path(facts_dir, week)
    counted = _days_counted(as_of_day, week)
    if not facts.exists():
        return f"none{counted}"
    stat = facts.stat()
    return f"{_code()}-{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}{counted}"


def _days_counted(as_of_day: date, week: date) -> str:
    """Up to which day the rows of a week's folder are counted; one that is long past is counted whole."""
    last_day = week + 2 * WEEK - timedelta(days=1)
    return f"-{min(last_day, as_of_day)}"


def _code() -> str:
    """Of the queries: other queries load all weeks again."""
    return code_version(*(load_sql("defs/usage", table) for table in _QUERIES))


def make_tables(connection: duckdb.DuckDBPyConnection) -> None:
    for table, columns in _FROM_FACTS.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS core.{table} ({columns})")


def load_weeks(connection: duckdb.DuckDBPyConnection, settings: Settings, first: date, last: date) -> None:
    """Replaces users by week and weekly usage of the weeks from `first` to `last` (Mondays)."""
    weeks = {"first_week": first, "last_week": last}
    for table in ("weekly_users", "weekly_usage"):
        _replace(connection, settings, table, "week_start", weeks, _facts(settings.home.facts_dir, first, last))


def load_days_and_months(connection: duckdb.DuckDBPyConnection, settings: Settings, first: date, last: date) -> None:
    """Replaces the days of the weeks from `first` to `last` (Mondays), and users of the months that they lie in."""
    days = {"first_day": first, "last_day": last + timedelta(days=6)}
    _replace(connection, settings, "account_days", "day", days, _facts(settings.home.facts_dir, *days.values()))
    beyond = (last + WEEK + timedelta(days=31)).replace(day=1)
    months = {"first_day": first.replace(day=1), "last_day": beyond - timedelta(days=1)}
    _replace(
        connection, settings, "monthly_users", "month_start", months, _facts(settings.home.facts_dir, *months.values())
    )


def _facts(facts_dir: Path, first: date, last: date) -> list[str]:
    """The facts that can hold days from `first` to `last`."""
    folders = weeks_between(first - WEEK, last + WEEK)
    return [str(path) for week in folders if (path := facts_path(facts_dir, week)).exists()]


def _replace(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    table: str,
    key: str,
    span: dict[str, date],
    files: list[str],
) -> None:
    """Replaces the rows of a table whose key lies in `span` (first and last, both included)."""
    first, last = span
    connection.execute(f"DELETE FROM core.{table} WHERE {key} BETWEEN ${first} AND ${last}", span)
    if files:
        values = span | {"files": files} | sql_values(settings)
        run_sql(connection, f"INSERT INTO core.{table} {load_sql('defs/usage', table)}", values)


@dg.asset(
    key="weeks",
    group_name="usage",
    kinds={"duckdb", "sql"},
    owners=OWNERS,
    deps=deps_of(
        "weeks",
        Step(
            tables={"core.weeks": "defs/usage/weeks"},
            reads=["usage_facts"],
            passing={"manifests": ("week", "files_quarantined", "source_rows", "read_on", "rows_rejected")},
        ),
    ),
    pool=POOL,
    code_version=code_of("ingestion", "defs/usage"),
)
def weeks(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """Which weeks may be judged by: ended, settled, arrived whole, not collapsed. Only these enter ranks and anomalies.

    One row: a week.
    """
    manifests = read_manifests(settings.home.facts_dir)
    rows = pa.table(
        {
            "week": pa.array(list(manifests), pa.date32()),
            "files_quarantined": pa.array([len(m.quarantined) for m in manifests.values()], pa.int64()),
            "source_rows": pa.array([m.rows_read for m in manifests.values()], pa.int64()),
            "read_on": pa.array(
                [date.fromisoformat(m.as_of_day) if m.as_of_day else None for m in manifests.values()], pa.date32()
            ),
            "rows_rejected": pa.array([m.rows_rejected for m in manifests.values()], pa.int64()),
        }
    )
    with warehouse.get_connection() as connection:
        connection.register("manifests", rows)
        run_sql(
            connection, f"CREATE OR REPLACE TABLE core.weeks AS {load_sql('defs/usage', 'weeks')}", sql_values(settings)
        )
        connection.unregister("manifests")
        counts = dict(connection.execute("SELECT week_status, count(*) FROM core.weeks GROUP BY 1").fetchall())
        newest = connection.execute("SELECT max(week_start) FROM core.weeks WHERE is_complete").fetchone()
    if not newest or newest[0] is None:
        raise dg.Failure(
            f"no complete week of usage between {settings.clock.window_start} and {settings.clock.running_week}: "
            "check the path of sources.usage and as_of with `usage-pipeline sources check`",
            metadata={"weeks": dg.MetadataValue.json(counts)},
            allow_retries=False,
        )
    return dg.MaterializeResult(
        metadata={
            "weeks": dg.MetadataValue.json(counts),
            "newest_complete_week": str(newest[0]),
            "data_through": str(newest[0] + timedelta(days=6)),
            **column_lineage("weeks"),
        }
    )


USAGE_TABLES = [
    sql_table(
        "months",
        schema="core",
        group="usage",
        description="Which calendar months may be judged by: those whose weeks are all complete.",
    ),
    sql_table(
        "account_names",
        schema="core",
        group="usage",
        description="One label for every account that any source knows, so that no page shows a bare id.",
    ),
    sql_table(
        "application_names",
        schema="core",
        group="usage",
        description="Names and types of every application that any source knows.",
    ),
    sql_table(
        "usage_by_week",
        schema="mart",
        group="usage",
        description="The curves: usage week by week, beside the same week a year ago, with anomalies.",
    ),
    sql_table(
        "user_weeks",
        schema="mart",
        group="usage",
        description="Who came in which week, by an opaque key: counts different people exactly under any filter.",
        cut=Cut("week_start", "user_week_slices", {"core.weekly_users": "week_start", "core.weeks": None}),
    ),
    sql_table(
        "usage_by_period",
        schema="mart",
        group="usage",
        description="Top and bottom: usage over the last 4, 13, 52 and 104 weeks, ranked among those subscribed.",
    ),
    sql_table(
        "usage_changes",
        schema="mart",
        group="usage",
        description="Gainers and decliners against the same weeks of last year.",
    ),
]


def usage_assets(partitions: dg.WeeklyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    return [weekly_usage_asset(partitions), weeks, *USAGE_TABLES]
