"""The KPI sheet computed: first wide, a row an entity and period with a column a KPI; then long, a row a KPI.

Belongs here: the order of the steps. Does not: the steps (`sql/`), nor what a KPI is (`catalogue.py`).

Months and weeks go through the same steps one after the other. Users, accounts and subscriptions are counted anew for
each period without looking at each of its months: a thing counts where it was last seen in the period, so a list of
(month of use, month of the next use) gives every period at once.

A period is computed of its own months (or weeks) and of nothing else, so some periods can be made without the others:
`kpi_steps` are the months that are needed for those, and a closed period that nothing touched is left as it is.
"""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from usage_pipeline.config.settings import GroupSettings, Settings, Sources
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.formatting import currency, date_format
from usage_pipeline.core.sql import literal, load_sql, named_values, run_sql
from usage_pipeline.core.tables import TABLES
from usage_pipeline.core.texts import separators
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
        "kpi_terms",
        "kpi_subscribed",
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
_WORK = (
    *VALUE_QUERIES,
    *("kpi_due", "kpi_steps", "kpi_wanted_periods"),
    *("counted_use", "kpi_counted", "kpi_measured", "kpi_known", "kpi_filled"),
)
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
    ",d": "translate(format('{:,}', CAST(round(x) AS BIGINT)), ',.', $separators)",
    ",.1f": "translate(format('{:,.1f}', x), ',.', $separators)",
    ",.2f": "translate(format('{:,.2f}', x), ',.', $separators)",
    "$,.0f": "$currency || translate(format('{:,}', CAST(round(x) AS BIGINT)), ',.', $separators)",
}


class GroupError(ValueError):
    """A group of the configuration names what nobody knows; the message names the group, the member and the remedy."""


def make_terms(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes what subscriptions say of each month and week: small, so of all of them, and told apart by month."""
    for name in ("kpi_terms", "kpi_subscribed"):
        _make(connection, name, load_sql("kpis", name), {})


def replace_values(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    catalogue: KpiCatalogue,
    periods: Sequence[str] | None = None,
) -> None:
    """Replaces `core.kpi_values`: a row an entity and period in which it was subscribed or used, a column a KPI.

    `periods`: the numbers of those whose rows are gone and are put in; None: of all. The caller has made the terms.
    Beside it `core.kpi_account_level`: what subscriptions about whole accounts add to a KPI in a month or week, which
    sums over applications lack. Raises KpiError where an expression of the catalogue cannot be computed.
    """
    check_expressions(catalogue)
    _choose(connection, periods)
    for name in ("kpi_account_applications", "kpi_user_ids", "kpi_entity_account_applications"):
        _make(connection, name, load_sql("kpis", name), {})
    for place, calendar in enumerate(CALENDARS):
        sql = _values_of(connection, settings, catalogue, calendar)
        is_first = place == 0 and periods is None
        into = "CREATE OR REPLACE TABLE core.kpi_values AS" if is_first else "INSERT INTO core.kpi_values"
        run_sql(connection, f"{into} {sql}", {"calendar": calendar})


def _choose(connection: duckdb.DuckDBPyConnection, periods: Sequence[str] | None) -> None:
    """Makes `kpi_due`, the periods that are made, the months and weeks that they need, and those as periods."""
    due, values = _one_of("CAST(period_no AS VARCHAR)", periods)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE kpi_due AS FROM core.kpi_periods WHERE {due}", values)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kpi_steps AS FROM core.kpi_base_periods AS steps SEMI JOIN kpi_due AS due "
        "ON steps.calendar = due.calendar AND steps.nth BETWEEN due.first_nth AND due.last_nth"
    )
    # ratios divide what is counted in single months
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kpi_wanted_periods AS FROM kpi_due UNION SELECT periods.* FROM core.kpi_periods "
        "AS periods SEMI JOIN kpi_steps AS steps ON periods.period = steps.calendar AND periods.last_nth = steps.nth"
    )
    connection.execute(
        f"CREATE {'OR REPLACE TABLE' if periods is None else 'TABLE IF NOT EXISTS'} core.kpi_account_level "
        "(kpi VARCHAR, calendar VARCHAR, nth INTEGER, value DOUBLE)"
    )
    connection.execute(
        "DELETE FROM core.kpi_account_level WHERE (calendar, nth) IN (SELECT (calendar, nth) FROM kpi_steps) "
        "OR (calendar, nth) NOT IN (SELECT (calendar, nth) FROM core.kpi_base_periods)"
    )


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
        "INNER JOIN kpi_steps AS steps ON steps.calendar = $calendar "
        "INNER JOIN kpi_wanted_periods AS alone ON alone.period = $calendar AND alone.last_nth = steps.nth "
        "LEFT JOIN kpi_measured AS own ON entities.entity_no = own.entity_no AND steps.nth = own.nth "
        "INNER JOIN kpi_known AS known ON steps.nth = known.nth "
        "LEFT JOIN kpi_counted AS counted ON entities.entity_no = counted.entity_no "
        "AND alone.period_no = counted.period_no",
        values,
    )
    return (
        f"SELECT steps.entity_no, periods.period_no, {over_periods(catalogue, is_delivered)} FROM kpi_filled AS steps "
        "INNER JOIN kpi_period_members AS periods ON steps.nth = periods.nth "
        "SEMI JOIN kpi_due AS due ON periods.period_no = due.period_no "
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


def values_of_sheet() -> dict[str, Any]:
    """What the sheet holds beside figures: its texts and words, and how days, numbers and amounts are written."""
    sql = "\n".join(load_sql("kpis", name) for name in ("kpi_rows", "kpi_report"))
    return named_values(sql, {"date_format": date_format()}) | {"separators": separators(), "currency": currency()}


def replace_sheet(
    connection: duckdb.DuckDBPyConnection, catalogue: KpiCatalogue, months: Sequence[str] | None = None
) -> None:
    """Replaces `mart.kpi_report` from `core.kpi_values`, KPI by KPI: so it lies in the order in which it is read.

    `months`: the reference months (of weeks, the Mondays) whose rows are gone and are put in; None: all.
    """
    if months is None:
        columns = ", ".join(f"{column.name} {column.type}" for column in TABLES["kpi_report"].columns)
        connection.execute(f"CREATE OR REPLACE TABLE mart.kpi_report ({columns})")
    due, values = _one_of("CAST(CAST(reference_day AS TIMESTAMP) AS VARCHAR)", months)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kpi_months_due AS "
        f"SELECT DISTINCT reference_day FROM core.kpi_periods WHERE {due}",
        values,
    )
    _make(connection, "kpi_rows", load_sql("kpis", "kpi_rows"), {"date_format": date_format()})
    _make(connection, "kpi_histories", load_sql("kpis", "kpi_histories"), {})
    for place, kpi in enumerate(catalogue.kpis, 1):
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW kpi_one AS SELECT * EXCLUDE (own, year_ago, before), "
            f"own.{kpi.name} AS value, year_ago.{kpi.name} AS value_year_ago, before.{kpi.name} AS value_before, "
            f"CAST(own.{DENOMINATOR} AS BIGINT) AS active_accounts FROM kpi_rows"
        )
        connection.execute(
            "CREATE OR REPLACE TEMP VIEW kpi_history AS SELECT * EXCLUDE (own), "
            f"CAST(own.{kpi.name} AS DOUBLE) AS value FROM kpi_histories"
        )
        shown = (
            _SHOWN[kpi.format].replace("$separators", literal(separators())).replace("$currency", literal(currency()))
        )
        connection.execute(f"CREATE OR REPLACE TEMP MACRO kpi_shown(x) AS {shown}")
        run_sql(connection, f"INSERT INTO mart.kpi_report {load_sql('kpis', 'kpi_report')}", _values_for(kpi, place))
    connection.execute(
        "DROP VIEW kpi_one; DROP VIEW kpi_history; DROP MACRO kpi_shown; DROP TABLE temp.kpi_rows; "
        "DROP TABLE temp.kpi_histories; DROP TABLE temp.kpi_months_due"
    )


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


def _one_of(text: str, listed: Sequence[str] | None) -> tuple[str, dict[str, Any]]:
    """The condition that an expression of text is one of those listed (None: any), with the values it names."""
    if listed is None:
        return "TRUE", {}
    return f"{text} IN (SELECT unnest(CAST($listed AS VARCHAR[])))", {"listed": list(listed)}


@contextmanager
def work_tables(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """What lies beside the warehouse only while it is needed."""
    try:
        yield
    finally:
        for name in _WORK:
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")


def _make(connection: duckdb.DuckDBPyConnection, name: str, sql: str, values: dict[str, Any]) -> None:
    run_sql(connection, f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}", values)
