"""Week rules: New Year, week 53, both calendars, both spellings."""

import itertools
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_pipeline.config.settings import load_settings
from usage_pipeline.core.weeks import WeekFolder, folder_of, folders_of, monday_of, weeks_between, weeks_of
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
