"""The KPI sheet computed: first wide, a row an entity and period with a column a KPI; then long, a row a KPI.

Belongs here: the order of the steps. Does not: the steps (`sql/`), nor what a KPI is (`catalogue.py`).

Months and weeks go through the same steps one after the other. Users, accounts and subscriptions are counted anew for
each period without looking at each of its months: a thing counts where it was last seen in the period, so a list of
(month of use, month of the next use) gives every period at once.
"""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from usage_pipeline.config.settings import GroupSettings, Settings, Sources
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.formatting import currency, date_format
from usage_pipeline.core.sql import literal, load_sql, run_sql
from usage_pipeline.core.tables import TABLES
from usage_pipeline.kpis.catalogue import (
    DENOMINATOR,
    Kpi,
    KpiCatalogue,
    Stock,
    check_expressions,
    delivered,
    filled,
    measures,
    over_periods,
    pivoted,
)

CALENDARS = ("month", "week")
# work tables, gone when the values are there: those with a query of their own, and the others
VALUE_QUERIES = (
    *(
        "kpi_period_members",
        "kpi_account_applications",
        "kpi_user_ids",
        "kpi_entity_account_applications",
        "kpi_usage",
        "kpi_subscriptions",
        "kpi_zero_rows",
    ),
    *("kpi_distinct_entities", "kpi_distinct_spans", "kpi_distinct_spans_of_weeks", "kpi_counts"),
)
_WORK = (*VALUE_QUERIES, "counted_use", "kpi_counted", "kpi_measured", "kpi_known", "kpi_filled")
# where the members of groups are known: table, key, name
_KNOWN = {
    "accounts": ("core.account_names", "account_id", "account"),
    "applications": ("core.application_names", "application_key", "application"),
}
# of `kpi_groups`, the groups of the configuration
GROUP_COLUMNS = ("kind", "group_name", "member")
# a period of several months counts what comes in each of them once; no period has several weeks
_RUNS = {"month": "kpi_distinct_spans", "week": "kpi_distinct_spans_of_weeks"}
# as d3 writes a number, in DuckDB
_SHOWN = {
    ",d": "format('{:,}', CAST(round(x) AS BIGINT))",
    ",.1f": "format('{:,.1f}', x)",
    ",.2f": "format('{:,.2f}', x)",
    "$,.0f": "$currency || format('{:,}', CAST(round(x) AS BIGINT))",
}


class GroupError(ValueError):
    """A group of the configuration names what nobody knows; the message names the group, the member and the remedy."""


def replace_values(connection: duckdb.DuckDBPyConnection, settings: Settings, catalogue: KpiCatalogue) -> None:
    """Replaces `core.kpi_values`: a row an entity and period in which it was subscribed or used, a column a KPI.

    Beside it `core.kpi_account_level`: what subscriptions about whole accounts add to a KPI in a month or week, which
    sums over applications lack. Raises KpiError where an expression of the catalogue cannot be computed.
    """
    check_expressions(catalogue)
    connection.execute(
        "CREATE OR REPLACE TABLE core.kpi_account_level (kpi VARCHAR, calendar VARCHAR, nth INTEGER, value DOUBLE)"
    )
    with _work_tables(connection):
        for name in ("kpi_account_applications", "kpi_user_ids", "kpi_entity_account_applications"):
            _make(connection, name, load_sql("kpis", name), {})
        for place, calendar in enumerate(CALENDARS):
            sql = _values_of(connection, settings, catalogue, calendar)
            into = "CREATE OR REPLACE TABLE core.kpi_values AS" if place == 0 else "INSERT INTO core.kpi_values"
            run_sql(connection, f"{into} {sql}", {"calendar": calendar})


def _values_of(
    connection: duckdb.DuckDBPyConnection, settings: Settings, catalogue: KpiCatalogue, calendar: str
) -> str:
    """Makes the work tables of one calendar; returns the query for its values."""
    values = sql_values(settings) | {"calendar": calendar}
    for name in ("kpi_period_members", "kpi_usage", "kpi_subscriptions", "kpi_zero_rows"):
        _make(connection, name, load_sql("kpis", name), values)
    for kpi in catalogue.kpis:
        if isinstance(kpi.computed, Stock) and kpi.computed.sum is not None:
            connection.execute(
                f"INSERT INTO core.kpi_account_level SELECT $title, $calendar, nth, {kpi.computed.measure} "
                "FROM kpi_subscriptions WHERE is_whole_account GROUP BY nth",
                {"title": kpi.title, "calendar": calendar},
            )
    _make(
        connection,
        "kpi_measured",
        f"SELECT holders.entity_no, nth, {measures(catalogue)} FROM kpi_subscriptions "
        "INNER JOIN kpi_entity_account_applications AS holders USING (account_application_no) "
        # five million rows that nobody picks: the weeks of an account stand on its own page
        "WHERE $calendar = 'month' OR holders.entity_type != 'account' GROUP BY holders.entity_no, nth",
        values,
    )
    _make(connection, "kpi_known", f"SELECT nth, {measures(catalogue)} FROM kpi_zero_rows GROUP BY nth", values)
    _count(connection, catalogue, values)
    is_delivered = delivered(settings.sources)
    _make(
        connection,
        "kpi_filled",
        "SELECT entities.entity_no, steps.nth, own.entity_no IS NOT NULL AS is_present, "
        f"{filled(catalogue, is_delivered)} FROM (SELECT DISTINCT entity_no FROM core.kpi_members) AS entities "
        "INNER JOIN core.kpi_base_periods AS steps ON steps.calendar = $calendar "
        "INNER JOIN core.kpi_periods AS alone ON alone.period = $calendar AND alone.last_nth = steps.nth "
        "LEFT JOIN kpi_measured AS own ON entities.entity_no = own.entity_no AND steps.nth = own.nth "
        "INNER JOIN kpi_known AS known ON steps.nth = known.nth "
        "LEFT JOIN kpi_counted AS counted ON entities.entity_no = counted.entity_no "
        "AND alone.period_no = counted.period_no",
        values,
    )
    return (
        f"SELECT steps.entity_no, periods.period_no, {over_periods(catalogue, is_delivered)} FROM kpi_filled AS steps "
        "INNER JOIN kpi_period_members AS periods ON steps.nth = periods.nth "
        "LEFT JOIN kpi_counted AS counted ON steps.entity_no = counted.entity_no "
        "AND periods.period_no = counted.period_no "
        "GROUP BY steps.entity_no, periods.period_no HAVING bool_or(steps.is_present)"
    )


def _count(connection: duckdb.DuckDBPyConnection, catalogue: KpiCatalogue, values: dict[str, Any]) -> None:
    """Makes `kpi_counted`: a row an entity and period, a column a distinct count."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kpi_counts (kpi VARCHAR, entity_no INTEGER, period_no INTEGER, number BIGINT)"
    )
    for entry in catalogue.of_kind("distinct"):
        computed: Any = entry.computed
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE counted_use AS "
            f"SELECT DISTINCT nth, account_application_no, {computed.thing} AS thing "
            f"FROM kpi_usage WHERE ({computed.where}) AND {computed.thing} IS NOT NULL"
        )
        _make(connection, "kpi_distinct_entities", load_sql("kpis", "kpi_distinct_entities"), values)
        _make(connection, "kpi_distinct_spans", load_sql("kpis", _RUNS[values["calendar"]]), values)
        run_sql(connection, f"INSERT INTO kpi_counts {load_sql('kpis', 'kpi_counts')}", values | {"kpi": entry.name})
    _make(
        connection,
        "kpi_counted",
        f"SELECT entity_no, period_no, {pivoted(catalogue)} FROM kpi_counts GROUP BY entity_no, period_no",
        values,
    )


def replace_sheet(connection: duckdb.DuckDBPyConnection, catalogue: KpiCatalogue) -> None:
    """Replaces `mart.kpi_report` from `core.kpi_values`, KPI by KPI: so it lies in the order in which it is read."""
    columns = ", ".join(f"{column.name} {column.type}" for column in TABLES["kpi_report"].columns)
    connection.execute(f"CREATE OR REPLACE TABLE mart.kpi_report ({columns})")
    _make(connection, "kpi_rows", load_sql("kpis", "kpi_rows"), {"date_format": date_format()})
    for place, kpi in enumerate(catalogue.kpis, 1):
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW kpi_one AS SELECT * EXCLUDE (own, year_ago, before), "
            f"own.{kpi.name} AS value, year_ago.{kpi.name} AS value_year_ago, before.{kpi.name} AS value_before, "
            f"CAST(own.{DENOMINATOR} AS BIGINT) AS active_accounts FROM kpi_rows"
        )
        shown = _SHOWN[kpi.format].replace("$currency", literal(currency()))
        connection.execute(f"CREATE OR REPLACE TEMP MACRO kpi_shown(x) AS {shown}")
        run_sql(connection, f"INSERT INTO mart.kpi_report {load_sql('kpis', 'kpi_report')}", _values_for(kpi, place))
    connection.execute("DROP VIEW kpi_one; DROP MACRO kpi_shown; DROP TABLE temp.kpi_rows")


def _values_for(kpi: Kpi, place: int) -> dict[str, Any]:
    return {
        "kpi": kpi.title,
        "kpi_rank": place,
        "kpi_group": kpi.group,
        "unit": kpi.unit,
        "number_format": kpi.format,
        "good": kpi.good,
        "per_active_account": kpi.per_active_account,
        "share": kpi.big_change.share,
        "floor": kpi.big_change.floor,
    }


def replace_members(connection: duckdb.DuckDBPyConnection, groups: GroupSettings) -> None:
    """Replaces `core.kpi_members`. Raises GroupError where a group names what no source knows."""
    listed = {"accounts": groups.accounts, "applications": groups.applications}
    problems = []
    for kind, (table, key, name) in _KNOWN.items():
        known = dict(connection.execute(f"SELECT {key}, {name} FROM {table}").fetchall())
        for group, members in listed[kind].items():
            problems += [f"groups.{kind}.{group}: {_unknown(m, known, kind)}" for m in members if m not in known]
    if problems:
        raise GroupError("\n".join(problems))
    rows = [(kind, group, m) for kind, of_kind in listed.items() for group, members in of_kind.items() for m in members]
    columns = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(GROUP_COLUMNS)}
    connection.register("kpi_groups", pa.table(columns))
    connection.execute(f"CREATE OR REPLACE TABLE core.kpi_members AS {load_sql('kpis', 'kpi_members')}")
    connection.unregister("kpi_groups")


def _unknown(member: str, known: dict[str, str], kind: str) -> str:
    """The sentence about a member that is not there, with what may have been meant."""
    meant = next((key for key, name in known.items() if name == member), None)
    close = [meant] if meant else difflib.get_close_matches(member, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else "."
    return f"no source knows {kind.removesuffix('s')} '{member}'{hint} Write its key, or take it out of the group"


def why_no_months(connection: duckdb.DuckDBPyConnection, sources: Sources) -> str | None:
    """Why the sheet holds weeks alone, in a sentence; None where a month is complete."""
    found = connection.execute(
        "SELECT count(*) FILTER (WHERE is_complete), string_agg(incomplete_weeks, ', ' ORDER BY month_start) "
        "FROM core.months"
    ).fetchone()
    complete, incomplete = found or (0, None)
    if complete:
        return None
    if not sources.usage.delivers("event_time"):
        return (
            "the sheet holds weeks alone: days of use are not delivered, and months are counted from days; "
            "map usage.columns.event_time where there are any"
        )
    return (
        f"the sheet holds weeks alone: no month is complete yet; weeks that are not: {incomplete or 'none on record'}"
    )


@contextmanager
def _work_tables(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """What lies beside the warehouse only while it is needed."""
    try:
        yield
    finally:
        for name in _WORK:
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")


def _make(connection: duckdb.DuckDBPyConnection, name: str, sql: str, values: dict[str, Any]) -> None:
    run_sql(connection, f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}", values)
