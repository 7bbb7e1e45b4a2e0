"""Months that were closed: kept as they were reported, beside what is computed of them later, and why that differs."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from usage_pipeline.config.settings import ConfigError, Settings, load_settings
from usage_pipeline.config.source_schemas import SUBSCRIPTIONS
from usage_pipeline.core.tables import TABLES, schema_violation
from usage_pipeline.core.weeks import monday_of, weeks_between
from usage_pipeline.ingestion.facts import ingest_weeks
from usage_pipeline.ingestion.reference import take_delivery
from usage_pipeline.kpis.catalogue import KpiCatalogue, read_kpis
from usage_pipeline.kpis.closed_months import close_months, closing_time, replace_reported
from usage_pipeline_tests.support.kpi_oracle import World
from usage_pipeline_tests.support.kpi_worlds import GROUPS, a_world, computed, settings_of, subscription
from usage_pipeline_tests.support.lakes import write_config, write_week
from usage_pipeline_tests.support.refreshes import keep_as_published

FIRST = date(2024, 9, 30)
# (account, application, user, day, clicks): Mondays of four months
EVENTS = [("a", "p", "u", FIRST + timedelta(weeks=n), 10) for n in range(22)]
DELIVERED = [subscription("a", "p", date(2024, 1, 1)), subscription("b", "q", date(2024, 1, 1))]


def at(
    moment: str,
    folder: Path,
    events: list[Any] = EVENTS,
    subscriptions: list[Any] = DELIVERED,
    late: list[Any] | None = None,
    **changes: Any,
) -> tuple[duckdb.DuckDBPyConnection, Settings]:
    """The sheet as of a moment, with facts and deliveries; `late` events lie in files of their own."""
    now = datetime.fromisoformat(moment)
    world = a_world(
        [e for e in [*events, *(late or [])] if e[3] <= now.date()], FIRST, now.date(), subscriptions, **changes
    )
    settings_of(world, folder)
    file = folder / "sources.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join(f"as_of: '{moment}'" if line.startswith("as_of:") else line for line in lines))
    settings = load_settings(file).model_copy(update={"groups": world.groups})
    _write_lake(world, folder, {(e[0], e[1], e[2], e[3]) for e in late or []})
    ingest_weeks(settings, weeks_between(settings.clock.window_start, settings.clock.running_week), now=moment)
    take_delivery(settings, SUBSCRIPTIONS)
    return computed(world, settings), settings


def _write_lake(world: World, folder: Path, late: set[Any]) -> None:
    """Writes what differs from the files that are there."""
    keys = zip(*(world.rows[c] for c in ("account_id", "application", "user_id", "day")), strict=True)
    rows = world.rows.assign(
        event_time=pd.to_datetime(world.rows["day"]) + pd.Timedelta(hours=12), is_late=[key in late for key in keys]
    )
    week: Any
    for (week, is_late), found in rows.groupby([rows["day"].map(monday_of), "is_late"]):
        year, number, _ = week.isocalendar()
        records, name = found.drop(columns=["day", "is_late"]).to_dict("records"), f"part-{int(is_late)}.parquet"
        target = folder / "lake" / f"year={year}" / f"week={number:02d}" / name
        if not target.exists() or pd.read_parquet(target).to_dict("records") != records:
            write_week(folder / "lake", f"year={year}/week={number:02d}", records, name)
    pd.DataFrame(world.subscriptions, columns=SUBSCRIPTIONS.names).to_csv(folder / "subscriptions.csv", index=False)


def reported(connection: duckdb.DuckDBPyConnection, settings: Settings, catalogue: KpiCatalogue | None = None) -> Any:
    replace_reported(connection, settings.home, settings.groups, catalogue or read_kpis())
    assert schema_violation(connection, TABLES["kpi_reported"]) is None
    return connection.execute("FROM mart.kpi_reported").df()


def of(rows: pd.DataFrame, kpi: str, entity: str, period: str = "month") -> Any:
    """The row of a KPI."""
    found = rows[(rows["kpi"] == kpi) & (rows["entity_key"] == entity) & (rows["kpi_period"] == period)]
    return found.iloc[0]


def closed(connection: duckdb.DuckDBPyConnection, settings: Settings) -> list[date]:
    """The months that a run closes which is published."""
    months = close_months(
        connection, settings.home, settings.clock.as_of, settings.groups, settings.schedule, read_kpis()
    )
    keep_as_published(settings)
    return months


@pytest.mark.long
def test_a_month_is_closed_by_the_first_run_after_the_fifth_and_never_again(tmp_path: Path) -> None:
    connection, settings = at("2025-02-05T06:59:00", tmp_path)
    assert closed(connection, settings) == [date(2024, 12, 1)]
    connection, settings = at("2025-02-05T07:00:00", tmp_path)
    assert closed(connection, settings) == [date(2025, 1, 1)]
    files = {file: file.read_bytes() for file in (settings.home.history_dir / "months").glob("*.parquet")}
    assert sorted(file.name for file in files) == ["2024-12.parquet", "2025-01.parquet"]
    connection, settings = at("2025-02-20T09:00:00", tmp_path, [*EVENTS, ("a", "p", "v", date(2025, 1, 7), 5)])
    assert closed(connection, settings) == []
    assert {file: file.read_bytes() for file in files} == files


@pytest.mark.long
def test_months_that_no_run_closed_in_time_are_closed_later_and_none_of_before_the_first(tmp_path: Path) -> None:
    connection, settings = at("2024-12-06T00:00:00", tmp_path)
    assert closed(connection, settings) == [date(2024, 11, 1)]  # October was nobody's to close
    connection, settings = at("2025-02-28T00:00:00", tmp_path)
    assert closed(connection, settings) == [date(2024, 12, 1), date(2025, 1, 1)]


@pytest.mark.long
def test_a_month_with_a_week_missing_waits_for_it(tmp_path: Path) -> None:
    connection, settings = at("2025-02-06T00:00:00", tmp_path, not_arrived=(date(2025, 1, 13),))
    assert closed(connection, settings) == [date(2024, 12, 1)]
    connection, settings = at("2025-02-10T00:00:00", tmp_path)
    assert closed(connection, settings) == [date(2025, 1, 1)]


@pytest.mark.long
def test_what_was_reported_stands_beside_what_is_computed_now_with_the_reason(tmp_path: Path) -> None:
    connection, settings = at("2025-02-06T00:00:00", tmp_path)
    closed(connection, settings)
    rows = reported(connection, settings)
    assert set(rows["reference"]) == {"Jan 2025"}
    assert not rows["is_revised"].any() and rows["why_revised"].isna().all()
    pd.testing.assert_series_equal(rows["value"], rows["value_reported"], check_names=False)
    assert set(rows["closed_at"]) == {pd.Timestamp("2025-02-06")}

    corrected = [*EVENTS, ("a", "p", "v", date(2025, 1, 7), 5)]
    connection, settings = at("2025-02-14T00:00:00", tmp_path, corrected)
    rows = reported(connection, settings)
    clicks = of(rows, "Clicks", "a")
    assert (clicks["value_reported"], clicks["value"]) == (40, 45)
    assert clicks["why_revised"] == "week of Jan 6, 2025: corrected files (15 clicks, were 10)"
    assert of(rows, "Clicks", "a", "3 months")["is_revised"]
    assert not of(rows, "Customers", "a")["is_revised"]
    changed = rows[rows["is_revised"]]
    assert set(changed["entity_key"]) == {"a", "all", "Town", "West", "Ana", "p", "Front", "Pilots", "Field"}


@pytest.mark.long
def test_a_late_file_is_told_from_a_corrected_one(tmp_path: Path) -> None:
    connection, settings = at("2025-02-06T00:00:00", tmp_path)
    closed(connection, settings)
    connection, settings = at("2025-02-07T00:00:00", tmp_path, late=[("a", "p", "w", date(2025, 1, 14), 3)])
    why = of(reported(connection, settings), "Clicks", "a")["why_revised"]
    assert why == "week of Jan 13, 2025: late files (13 clicks, were 10)"


@pytest.mark.long
def test_subscriptions_groups_and_definitions_that_changed_are_reasons(tmp_path: Path) -> None:
    connection, settings = at("2025-02-06T00:00:00", tmp_path)
    closed(connection, settings)

    ended = [DELIVERED[0], subscription("b", "q", date(2024, 1, 1), date(2025, 1, 20))]
    connection, settings = at("2025-02-07T00:00:00", tmp_path, subscriptions=ended)
    rows = reported(connection, settings)
    subscriptions = of(rows, "Customers", "b")
    assert (subscriptions["value_reported"], subscriptions["value"]) == (1, 0)
    assert subscriptions["why_revised"] == "subscriptions have been delivered anew"

    gone = [DELIVERED[0]]
    connection, settings = at("2025-02-08T00:00:00", tmp_path, subscriptions=gone)
    rows = reported(connection, settings)
    assert of(rows, "Clicks", "b")["why_revised"] == "no longer on the sheet: subscriptions have been delivered anew"
    assert pd.isna(of(rows, "Clicks", "b")["value"])


@pytest.mark.long
def test_a_group_with_other_members_is_a_reason(tmp_path: Path) -> None:
    connection, settings = at("2025-02-06T00:00:00", tmp_path)
    closed(connection, settings)
    now = a_world([e for e in EVENTS if e[3] <= date(2025, 2, 6)], FIRST, date(2025, 2, 6), DELIVERED)
    now.groups = GROUPS.model_copy(update={"accounts": {"Pilots": ["b"]}})
    others = settings.model_copy(update={"groups": now.groups})
    clicks = of(reported(computed(now, others), others), "Clicks", "Pilots")
    assert (clicks["value_reported"], clicks["value"]) == (40, 0)
    assert clicks["why_revised"] == "groups have other members"


@pytest.mark.long
def test_a_kpi_that_is_computed_in_another_way_or_renamed_or_gone_is_said(tmp_path: Path) -> None:
    connection, settings = at("2025-02-06T00:00:00", tmp_path)
    closed(connection, settings)
    catalogue = read_kpis()
    clicks = catalogue.kpis[0].model_copy(
        update={
            "title": "Clicks, doubled",
            "computed": catalogue.kpis[0].computed.model_copy(update={"expression": "2 * clicks"}),
        }
    )
    records = next(kpi for kpi in catalogue.kpis if kpi.name == "records_created")
    other = KpiCatalogue(kpis=(clicks, *(k for k in catalogue.kpis[1:] if k != records)), parts=catalogue.parts)
    world = a_world([e for e in EVENTS if e[3] <= date(2025, 2, 6)], FIRST, date(2025, 2, 6), DELIVERED)
    rows = reported(computed(world, settings, other), settings, other)
    doubled = of(rows, "Clicks, doubled", "a")
    assert (doubled["value_reported"], doubled["value"]) == (40, 80)
    assert doubled["why_revised"] == "the KPI is computed in another way"
    gone = of(rows, "Records created", "a")
    assert gone["why_revised"] == "no longer on the sheet: the KPI is no longer in the catalogue"


def test_the_moment_of_closing_is_that_of_the_monthly_refresh(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, schedule={"monthly": "30 6 3 * *"}, timezone="America/Chicago"))
    closing = closing_time(settings.clock.as_of, settings.schedule, date(2025, 12, 1))
    assert closing.isoformat().startswith("2026-01-03T06:30")
    with pytest.raises(ConfigError, match=r"schedule\.monthly"):
        load_settings(write_config(tmp_path, schedule={"monthly": "0 7 */5 * *"}))
