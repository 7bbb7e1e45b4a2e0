"""Many small worlds in one lake, each an account or a segment of its own: raw rows as a company would deliver them.

Belongs here: writing what a test says, and one refresh of it. Does not: what must become of it (the tests count by hand).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.config.source_schemas import ACCOUNTS, SUBSCRIPTIONS
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.outcomes import record
from usage_pipeline_tests.support.refreshes import run_refresh, upstream_of

AS_OF = date(2025, 3, 5)  # a Wednesday
NEWEST = date(2025, 2, 24)  # Monday of the newest complete week
LONG_AGO = date(2023, 1, 1)
ALWAYS = range(40)  # weeks ago, 0 the newest: more than any figure looks back
TABLES = (
    "call_list",
    "renewals",
    "revenue_movements",
    "revenue_retention",
    "subscription_users",
    "onboarding",
    "peers",
    "expansion",
    "account_health",
    "health_factor_points",
)


def ahead(days: int) -> date:
    return AS_OF + timedelta(days=days)


@dataclass
class Lake:
    """Rows of the sources, and the answers of people."""

    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def account(self, account: str, segment: str | None = None) -> None:
        """An account in a segment of its own, so that it is nobody's peer."""
        segment = segment or f"of {account}"
        self.accounts[account] = {"account_id": account, "account_name": account, "segment": segment}

    def subscribe(self, account: str, application: str | None, value: Any = 100, **more: Any) -> None:
        """A subscription; since long ago and without an end unless told otherwise."""
        row = {"account_id": account, "application": application, "start_date": LONG_AGO, "annual_value": value}
        self.subscriptions.append(row | more)
        if account not in self.accounts:
            self.account(account)

    def use(
        self,
        account: str,
        application: str,
        users: Iterable[str | None] = "xyz",
        weeks: Iterable[int] = ALWAYS,
        clicks: int = 4,
    ) -> None:
        """Each user (a letter, or none) clicks so often on the Wednesday of each week; weeks count back from the newest."""
        for ago in weeks:
            day = NEWEST + timedelta(days=2 - 7 * ago)
            self.events += [(ago, event(str(day), account, application, user, clicks)) for user in users]


def refreshed(folder: Path, lake: Lake) -> tuple[Settings, duckdb.DuckDBPyConnection]:
    """One refresh up to the tables above; the warehouse, to read."""
    by_week = defaultdict(list)
    for ago, row in lake.events:
        by_week[NEWEST - timedelta(weeks=ago)].append(row)
    for week, rows in by_week.items():
        iso = week.isocalendar()
        write_week(folder / "lake", f"year={iso.year}/week={iso.week:02d}", rows)
    sources = {
        "usage": {
            "path": "lake",
            "partitioned": True,
            "columns": {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")},
        },
        "accounts": _delivered(folder, "accounts", list(lake.accounts.values()), ACCOUNTS.names),
        "subscriptions": _delivered(folder, "subscriptions", lake.subscriptions, SUBSCRIPTIONS.names),
    }
    settings = load_settings(write_config(folder, as_of=str(AS_OF), lookback_weeks=60, sources=sources))
    for answer in lake.answers:
        record(settings.home.feedback_dir, **answer)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance, only=upstream_of(settings, *TABLES)).success
    return settings, duckdb.connect(str(settings.home.warehouse_path), read_only=True)


def _delivered(folder: Path, name: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / f"{name}.csv", index=False)
    return {"path": f"{name}.csv", "format": "csv", "columns": {c: c for c in columns if c in frame}}
