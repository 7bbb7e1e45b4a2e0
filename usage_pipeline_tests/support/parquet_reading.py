"""A file of the zoo put into a lake and read."""

from datetime import date, timedelta
from typing import Any

from usage_pipeline_tests.support.lake_probe import UsageOutcome
from usage_pipeline_tests.support.parquet_zoo import COLUMNS, Key

RUNNING_WEEK = date(2025, 3, 3)


WEEK = timedelta(days=7)


def folder_of(monday: date) -> str:
    iso = monday.isocalendar()
    return f"year={iso.year}/week={iso.week:02d}"


def usage_source(**changes: Any) -> dict[str, Any]:
    return {"path": "lake", "partitioned": True, "columns": {c: c for c in COLUMNS}} | changes


def facts_of(outcome: UsageOutcome, monday: date) -> dict[Key, int]:
    """Facts of the folder of a Monday, with days counted from it."""
    return {
        (account, application, user, None if day is None else (day - monday).days): clicks
        for (week, account, application, user, day), clicks in outcome.facts.items()
        if week == monday
    }
