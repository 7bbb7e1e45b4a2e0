"""How the data and the runs are judged: `doctor` says it, and alerts go out for it.

Belongs here: what is looked at by looking at builds and the status file alone, from wherever it is asked. Does not: the
machine and its servers (`doctor.py`), and telling people (`alerts.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import dagster as dg
import duckdb

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.settings import CompletenessSettings, ScheduleSettings, Sources
from usage_pipeline.core.formatting import day_and_time
from usage_pipeline.core.sql import as_dicts
from usage_pipeline.core.weeks import WEEK
from usage_pipeline.ingestion.deliveries import all_held_back
from usage_pipeline.ingestion.facts import newest_due_week, settled_on
from usage_pipeline.publishing.builds import Build, BuildStore

Level = Literal["ok", "warning", "failed"]
# a scheduled run that takes so long, or waits for its turn, is not missed yet
_RUN_HOURS = 6


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    about: str
    level: Level
    words: str
    remedy: str = ""
    # people are told of it, though it is no failure yet
    needs_alert: bool = False

    def __str__(self) -> str:
        return f"{self.level:8} {self.about:9} {self.words}" + (f": {self.remedy}" if self.remedy else "")


def check_freshness(clock: Clock, completeness: CompletenessSettings, store: BuildStore) -> Iterator[Finding]:
    build = store.current()
    if build is None:
        yield Finding("data", "failed", "nothing is published", "run `usage-pipeline refresh`; see builds below")
        return
    newest, due = date.fromisoformat(build.newest_week), newest_due_week(clock, completeness)
    through = f"complete through the week of {newest}"
    days = (clock.as_of_day - settled_on(completeness, due)).days
    if newest >= due:
        yield Finding("data", "ok", f"{through}, the newest that can be by {clock.as_of_day}")
    elif newest == due - WEEK and days < 1:
        yield Finding("data", "ok", f"{through}; that of {due} counts as whole since today, the next run takes it in")
    else:
        missing = _why_missing(store, build) or "no run has taken the weeks since in"
        level: Level = "warning" if newest == due - WEEK else "failed"
        words = f"{through}, expected {due} ({days} days ago): {missing}"
        yield Finding(
            "data",
            level,
            words,
            "see whether the lake has it (`usage-pipeline sources check`), and the last runs",
            True,
        )


def _why_missing(store: BuildStore, build: Build) -> str:
    """What pages say of the weeks after the newest complete one."""
    with duckdb.connect(str(store.path(build.build_id) / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT strftime(week_start, '%Y-%m-%d'), any_value(week_status) FROM mart.usage_by_week "
            "WHERE week_start > $newest AND NOT is_running GROUP BY week_start ORDER BY week_start",
            {"newest": date.fromisoformat(build.newest_week)},
        ).fetchall()
    return ", ".join(f"{week} {status}" for week, status in rows)


def check_runs(status_path: Path, clock: Clock, schedule: ScheduleSettings, now: datetime) -> Iterator[Finding]:
    """Of refreshes alone: a single table that somebody made by hand mends and breaks none."""
    rows = status_rows(
        status_path,
        "SELECT run, run_result, ended_at, failure FROM status.runs WHERE run_kind = 'refresh' "
        "ORDER BY coalesce(started_at, ended_at) DESC",  # one that could not be started has an end only
    )
    if not rows:
        yield Finding("runs", "failed", "no refresh is on record", "run `usage-pipeline refresh`")
        return
    ended = [row for row in rows if row["run_result"] in ("succeeded", "failed", "cancelled")]
    good = next((row for row in ended if row["run_result"] == "succeeded"), None)
    last_good = f"the last good one ended {_moment(good['ended_at'])}" if good else "none has ever succeeded"
    if ended and ended[0]["run_result"] == "failed":
        cause = str(ended[0]["failure"] or "see its log").strip().splitlines()[0]
        words = f"the last run failed {_moment(ended[0]['ended_at'])}, {last_good}"
        yield Finding("runs", "failed", f"{words}: {cause}", f"run {ended[0]['run']} in the Dagster UI tells more")
    elif ended and ended[0]["run_result"] == "cancelled":
        words = f"the last run was cancelled {_moment(ended[0]['ended_at'])}, {last_good}"
        yield Finding("runs", "warning", words, "run `usage-pipeline refresh`")
    elif good:
        yield Finding("runs", "ok", f"the last run succeeded {_moment(good['ended_at'])}")
    tick = None if clock.is_pinned else last_tick(clock.timezone, schedule, now)
    zone = ZoneInfo(clock.timezone)
    late = tick is not None and now - tick > timedelta(hours=_RUN_HOURS)
    if tick and late and good and good["ended_at"].replace(tzinfo=zone) < tick:
        words = f"none has succeeded since the refresh that was due {_moment(tick.astimezone(zone))}"
        yield Finding(
            "runs", "warning", words, "see that Dagster runs, or run `usage-pipeline refresh`", needs_alert=True
        )


def check_held_deliveries(history_dir: Path, sources: Sources) -> Iterator[Finding]:
    """Each reference source of which something is held back; it is an incident of its own."""
    found = list(all_held_back(history_dir, sources))
    if not found:
        yield Finding("sources", "ok", "no delivery is held back")
    for held_back in found:
        yield Finding(held_back.source, "warning", held_back.found, held_back.remedy, needs_alert=True)


def last_tick(timezone: str, schedule: ScheduleSettings, now: datetime) -> datetime | None:
    """The last time that the weekly refresh was due."""
    zone = ZoneInfo(timezone)
    start = (now - timedelta(days=400)).astimezone(zone)
    windows = dg.TimeWindowPartitionsDefinition(
        start=start.strftime("%Y-%m-%d"),
        fmt="%Y-%m-%d",
        cron_schedule=schedule.weekly,
        timezone=timezone,
    )
    with dg.partition_loading_context(effective_dt=now):
        last = windows.get_last_partition_window()
    return last.end if last else None


def status_rows(status_path: Path, sql: str) -> list[dict[str, Any]]:
    """Rows of the status file; none where no run has written it."""
    if not status_path.exists():
        return []
    with duckdb.connect(str(status_path), read_only=True) as connection:
        return as_dicts(connection.execute(sql))


def _moment(moment: datetime) -> str:
    return f"on {day_and_time(moment)}"
