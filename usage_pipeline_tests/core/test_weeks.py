"""Week rules: New Year, week 53, both calendars, both spellings."""

import itertools
from datetime import date, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_pipeline.config.settings import load_settings
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.core.weeks import (
    WeekFolder,
    folder_of,
    folders_of,
    is_ahead,
    monday_of,
    weeks_between,
    weeks_of,
)
from usage_pipeline.ingestion.lake import Lake
from usage_pipeline_tests.support.lakes import event, write_config, write_week


@pytest.mark.parametrize(
    ("day", "iso", "calendar_year"),
    [
        (date(2024, 12, 29), WeekFolder(2024, 52), WeekFolder(2024, 52)),
        (date(2024, 12, 30), WeekFolder(2025, 1), WeekFolder(2024, 1)),
        (date(2025, 1, 1), WeekFolder(2025, 1), WeekFolder(2025, 1)),
        (date(2021, 1, 1), WeekFolder(2020, 53), WeekFolder(2021, 53)),
        (date(2026, 12, 31), WeekFolder(2026, 53), WeekFolder(2026, 53)),
        (date(2027, 1, 3), WeekFolder(2026, 53), WeekFolder(2027, 53)),
    ],
)
def test_a_day_lies_in_the_folder_of_its_calendar(day: date, iso: WeekFolder, calendar_year: WeekFolder) -> None:
    assert folder_of(day, "iso") == iso
    assert folder_of(day, "calendar_year") == calendar_year


def test_a_week_across_new_year_lies_in_two_folders_by_calendar_year_and_in_one_by_iso() -> None:
    week = date(2024, 12, 30)
    assert folders_of(week, "iso") == [WeekFolder(2025, 1)]
    assert folders_of(week, "calendar_year") == [WeekFolder(2024, 1), WeekFolder(2025, 1)]


def test_a_folder_by_calendar_year_can_hold_two_weeks() -> None:
    assert weeks_of(WeekFolder(2024, 1), "calendar_year") == [date(2024, 1, 1), date(2024, 12, 30)]
    assert weeks_of(WeekFolder(2024, 1), "iso") == [date(2024, 1, 1)]


def test_2026_has_a_week_53_and_2025_has_none() -> None:
    assert weeks_of(WeekFolder(2026, 53), "iso") == [date(2026, 12, 28)]
    assert weeks_of(WeekFolder(2025, 53), "iso") == []


@given(st.dates(date(1990, 1, 1), date(2090, 1, 1)), st.sampled_from(["iso", "calendar_year"]))
def test_every_day_is_found_again_in_the_folders_of_its_week(day: date, calendar: str) -> None:
    folder = folder_of(day, calendar)  # type: ignore[arg-type]
    assert folder in folders_of(monday_of(day), calendar)  # type: ignore[arg-type]
    assert monday_of(day) in weeks_of(folder, calendar)  # type: ignore[arg-type]


@given(st.dates(date(2000, 1, 1), date(2050, 1, 1)), st.integers(0, 900))
def test_weeks_between_are_mondays_without_a_gap(first: date, days: int) -> None:
    weeks = list(weeks_between(first, first + timedelta(days=days)))
    assert all(week.weekday() == 0 for week in weeks)
    assert [b - a for a, b in itertools.pairwise(weeks)] == [timedelta(days=7)] * (len(weeks) - 1)


def test_both_spellings_of_a_folder_are_listed(tmp_path) -> None:
    write_week(tmp_path / "lake", "year=2025/week=1", [event("2025-01-01")])
    write_week(tmp_path / "lake", "year=2025/week=01", [event("2025-01-02")], "part-1.parquet")
    lake, path = Lake(load_settings(write_config(tmp_path)).store), str(tmp_path / "lake")
    assert lake.week_folders(path) == [WeekFolder(2025, 1)]
    assert len(lake.week_files(path, "parquet", WeekFolder(2025, 1)).files) == 2


@pytest.mark.parametrize(
    ("folders", "ours", "ahead"),
    [
        ("UTC", "America/Denver", True),
        ("UTC", "UTC", False),
        ("UTC", "Europe/Zurich", False),
        ("Europe/Zurich", "UTC", True),
        # in summer alone
        ("Europe/London", "UTC", True),
        ("UTC", "Europe/London", False),
        ("UTC", "Pacific/Auckland", False),
    ],
)
def test_which_folders_hold_the_evening_of_the_sunday_before(folders: str, ours: str, ahead: bool) -> None:
    assert is_ahead(folders, ours, 2025) == ahead


_MONDAY = date(2025, 2, 17)
_TUESDAY = date(2025, 2, 25)


@pytest.mark.parametrize(
    ("zone", "next_folder", "status"),
    [
        ("UTC", {"read_on": _TUESDAY}, "complete"),
        ("UTC", None, "last hours not arrived"),
        ("UTC", {"read_on": _MONDAY + timedelta(days=6)}, "last hours not arrived"),
        ("UTC", {"read_on": _MONDAY + timedelta(days=7)}, "complete"),
        ("UTC", {"read_on": _TUESDAY, "files_quarantined": 1}, "last hours not arrived"),
        # of before it was written down
        ("UTC", {"read_on": None}, "complete"),
        ("Asia/Tokyo", None, "last hours not arrived"),
        (None, None, "complete"),
        ("America/Los_Angeles", None, "complete"),
    ],
)
def test_a_week_is_not_complete_before_the_folder_with_its_sunday_evening_has_come(
    tmp_path, zone: str | None, next_folder: dict[str, Any] | None, status: str
) -> None:
    """In Denver the evening of a Sunday lies in the folder of the week that UTC has begun: the week was judged without."""
    columns = {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")}
    usage = {"path": "lake", "partitioned": True, "columns": columns} | ({"partition_timezone": zone} if zone else {})
    configured = load_settings(write_config(tmp_path, timezone="America/Denver", sources={"usage": usage}))
    known = {"files_quarantined": 0, "source_rows": 10, "rows_rejected": 0}
    rows = [{"week": _MONDAY, "read_on": _TUESDAY} | known]
    rows += [{"week": _MONDAY + timedelta(days=7)} | known | next_folder] if next_folder else []
    types = {"week": "DATE", "files_quarantined": "BIGINT", "source_rows": "BIGINT", "read_on": "DATE"}
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA core; CREATE TABLE core.weekly_usage (week_start DATE)")
        listed = ", ".join(f"{name} {kind}" for name, kind in (types | {"rows_rejected": "BIGINT"}).items())
        connection.execute(f"CREATE TABLE manifests ({listed})")
        for row in rows:
            connection.execute(
                f"INSERT INTO manifests ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", [*row.values()]
            )
        values = sql_values(configured) | {"as_of_day": _TUESDAY, "running_week": _MONDAY + timedelta(days=7)}
        values |= {"window_start": _MONDAY}
        found = run_sql(connection, load_sql("defs/usage", "weeks"), values).df()
    (week,) = found[found["week_start"] == str(_MONDAY)].to_dict("records")
    assert (week["week_status"], week["is_complete"]) == (status, status == "complete")
