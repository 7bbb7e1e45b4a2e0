"""Rules of the call list on small worlds: one account, a few subscriptions and events, the rows worked out by hand."""

from datetime import date, timedelta
from typing import Any

import duckdb
import pytest

from usage_pipeline.config.settings import Settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline_tests.support.people_worlds import (
    AS_OF,
    NEWEST,
    Event,
    PeopleWorld,
    computed,
    rows_of,
    settings_of,
    subscription,
)

LONG_AGO = date(2020, 1, 1)
# what other tests are about: here nothing of it is there
EMPTY = {
    "mart.anomaly_weeks": "account_id VARCHAR, account VARCHAR, application_key VARCHAR, application VARCHAR, "
    "week_start TIMESTAMP, first_week TIMESTAMP, confidence VARCHAR, anomaly_status VARCHAR, what_happened VARCHAR, "
    "scope VARCHAR, direction VARCHAR",
    "mart.usage_risks": "account_id VARCHAR, application_key VARCHAR, target VARCHAR, probability_text VARCHAR, "
    "risk VARCHAR, driver VARCHAR, listed_since TIMESTAMP, method_in_force VARCHAR, probability DOUBLE",
    "core.score_snapshots": "as_of_week DATE",
    "core.reason_usefulness": "call_reason VARCHAR, is_moved_down BOOLEAN",
    "core.risk_scores": "account_id VARCHAR, application VARCHAR, target VARCHAR, method VARCHAR, probability DOUBLE",
    "core.issued_health": "as_of_week DATE, account_id VARCHAR, application_key VARCHAR, health DOUBLE",
}
MADE = (
    ("defs/activity", "mart", "subscription_overview"),
    ("defs/health", "core", "health_factors"),
    ("defs/health", "core", "health_scores"),
    ("defs/health", "mart", "health_factor_points"),
    ("defs/health", "mart", "account_health"),
    ("defs/activity", "mart", "subscription_history"),
    ("defs/outreach", "mart", "call_reasons"),
    ("defs/outreach", "mart", "call_list"),
    ("defs/outreach", "mart", "renewals"),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_of(tmp_path_factory.mktemp("calls"))


def called(world: PeopleWorld, settings: Settings) -> duckdb.DuckDBPyConnection:
    connection = computed(world, settings)
    for table, columns in EMPTY.items():
        connection.execute(f"CREATE TABLE {table} ({columns})")
    for folder, schema, name in MADE:
        run_sql(connection, f"CREATE TABLE {schema}.{name} AS {load_sql(folder, name)}", sql_values(settings))
    return connection


def reasons_of(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], str]:
    rows = rows_of(connection, "mart.call_reasons")
    return {(row["application_key"], row["call_reason"]): row["urgency"] for row in rows}


def use(application: str, weeks: range, clicks: int = 20, users: int = 2) -> list[Event]:
    """Clicks of every user in each of the weeks, counted back from the newest."""
    return [
        Event("a", application, f"u{n}", NEWEST - timedelta(weeks=ago), clicks) for ago in weeks for n in range(users)
    ]


def test_a_main_user_who_left_is_a_reason_where_nobody_else_comes_too(settings: Settings) -> None:
    """With one other user left it was a call of this week, and with nobody left one to watch."""
    world = PeopleWorld(use("p", range(5, 25), users=1), [subscription("a", "p", LONG_AGO)])
    found = reasons_of(called(world, settings))
    assert found["p", "champion silent"] == "This week"
    assert ("p", "inactive") in found


def test_red_health_of_an_application_that_renews_at_once_is_a_reason_though_the_account_is_well(
    settings: Settings,
) -> None:
    healthy = [subscription("a", f"p{n}", LONG_AGO) for n in range(6)]
    events = [event for n in range(6) for event in use(f"p{n}", range(28))] + use("q", range(6, 28))
    for days, expected in ((17, {"q"}), (40, set())):
        row = subscription("a", "q", LONG_AGO, renewal_date=AS_OF + timedelta(days))
        connection = called(PeopleWorld(events, [*healthy, row]), settings)
        found = reasons_of(connection)
        assert {key for key, reason in found if reason == "low health"} == expected
        colors = {r["application_key"]: r["health_color"] for r in rows_of(connection, "mart.account_health")}
        assert (colors["all"], colors["q"]) == ("green", "red")


def test_that_an_application_renews_puts_nothing_at_risk_by_itself(settings: Settings) -> None:
    renewal = AS_OF + timedelta(40)
    world = PeopleWorld(
        use("q", range(28), users=3),
        [
            subscription("a", "p", LONG_AGO, annual_value=100.0),
            subscription("a", "q", LONG_AGO, annual_value=200.0, renewal_date=renewal),
        ],
    )
    connection = called(world, settings)
    assert reasons_of(connection) == {("p", "never adopted"): "Watch", ("q", "upcoming renewal"): "Watch"}
    (row,) = rows_of(connection, "mart.call_list")
    assert (row["urgency"], row["applications_at_risk"], row["arr_at_risk"]) == ("Watch", 1, 100)


def dates_of(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, Any]]:
    tables = ("mart.call_list", "mart.accounts_summary")
    return [(row["renewal_date"], row["days_to_renewal"]) for table in tables for row in rows_of(connection, table)]


def test_the_next_renewal_is_one_that_comes(settings: Settings) -> None:
    """One that had passed hid the next one, and its days were empty."""
    past, soon = subscription("a", "p", LONG_AGO, renewal_date=date(2024, 9, 1)), AS_OF + timedelta(20)
    billing = subscription("a", "q", LONG_AGO, renewal_date=soon)
    assert dates_of(called(PeopleWorld([], [past, billing]), settings)) == [(soon, 20)] * 2
    assert dates_of(called(PeopleWorld([], [past]), settings)) == [(None, None)] * 2


def test_what_leaves_before_its_renewal_has_none(settings: Settings) -> None:
    soon = AS_OF + timedelta(20)
    for days, expected in ((-1, (None, None)), (0, (soon, 20))):
        end = soon + timedelta(days)
        row = subscription("a", "p", LONG_AGO, end, notice_date=date(2025, 2, 1), renewal_date=soon)
        connection = called(PeopleWorld(use("p", range(28)), [row]), settings)
        assert dates_of(connection) == [expected] * 2
        assert len(rows_of(connection, "mart.renewals")) == (days == 0)


@pytest.mark.parametrize("delivered", [(), ("notice_date", "end_date")])
def test_notices_and_ends_that_nobody_delivers_are_empty_and_not_none(
    delivered: tuple[str, ...], settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    columns = {name: name for name in ("account_id", "application", "start_date", *delivered)}
    changed = settings_of(tmp_path_factory.mktemp("delivered"))
    sources = changed.sources.model_copy(
        update={"subscriptions": changed.sources.usage.model_copy(update={"columns": columns, "partitioned": False})}
    )
    changed = changed.model_copy(update={"sources": sources})
    (row,) = rows_of(computed(PeopleWorld([], [subscription("a", "p", LONG_AGO)]), changed), "mart.accounts_summary")
    expected = 0 if delivered else None
    assert (row["applications_notice"], row["applications_ended"]) == (expected, expected)
