"""ISO weeks: the Monday that names a week, the lake folders it lies in, and which weeks a run wants.

Belongs here: pure calendar rules. Does not: reading the clock (`config/clock.py` is the only clock) or files.

A week is named by its Monday. Folders carry a year and a week number; which year that is differs:
`iso` writes 2024-12-30 under year=2025/week=01, `calendar_year` writes it under year=2024/week=01, so that
one folder can hold days of two ISO weeks, and one ISO week can lie in two folders.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

PartitionCalendar = Literal["iso", "calendar_year"]
WEEK = timedelta(days=7)


@dataclass(frozen=True, order=True)
class WeekFolder:
    """A `year=/week=` folder of the lake, whatever its spelling."""

    year: int
    week: int

    def __str__(self) -> str:
        return f"year={self.year}/week={self.week:02d}"


def monday_of(day: date) -> date:
    """The Monday of the ISO week that `day` lies in."""
    return day - timedelta(days=day.weekday())


def weeks_between(first: date, last: date) -> Iterator[date]:
    """Mondays from the week of `first` to the week of `last`, both included."""
    week, end = monday_of(first), monday_of(last)
    while week <= end:
        yield week
        week += WEEK


def folder_of(day: date, calendar: PartitionCalendar) -> WeekFolder:
    """The folder that a day is written to under `calendar`."""
    iso = day.isocalendar()
    return WeekFolder(iso.year if calendar == "iso" else day.year, iso.week)


def folders_of(week: date, calendar: PartitionCalendar) -> list[WeekFolder]:
    """The one or two folders that hold the days of the week that begins on `week`."""
    return sorted({folder_of(week + timedelta(days=i), calendar) for i in range(7)})


def weeks_of(folder: WeekFolder, calendar: PartitionCalendar) -> list[date]:
    """The Mondays whose days can lie in `folder`: one for ISO, up to two by calendar year.

    Empty for a folder that no day belongs to, such as week 53 of a year with 52.
    """
    candidates = weeks_between(date(folder.year, 1, 1), date(folder.year, 12, 31))
    return [week for week in candidates if folder in folders_of(week, calendar)]


def contiguous_ranges(weeks: list[date]) -> list[tuple[date, date]]:
    """First and last of each unbroken run of weeks."""
    runs: list[tuple[date, date]] = []
    for week in weeks:
        if runs and runs[-1][1] + WEEK == week:
            runs[-1] = (runs[-1][0], week)
        else:
            runs.append((week, week))
    return runs


def is_ahead(zone: str, other: str, year: int) -> bool:
    """Whether a week ends later by the clock of one zone than of another, in January or July of a year.

    Folders cut in a zone that is ahead hold the last hours of a week of the other in the folder of the next.
    """
    return any(_offset(zone, year, month) > _offset(other, year, month) for month in (1, 7))


def _offset(zone: str, year: int, month: int) -> timedelta:
    offset = datetime(year, month, 1, tzinfo=ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return offset
