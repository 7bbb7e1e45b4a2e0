"""When the pipeline runs by itself."""

from collections.abc import Callable
from datetime import date

import dagster as dg

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.settings import ScheduleSettings, Settings

refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.all(),
    description="Everything: the weeks of the window that changed, all tables, the build, the dashboards.",
)


def window_tags(clock: Clock) -> dict[str, str]:
    """The tags that make one run cover all weeks of the look-back window."""
    return range_tags(max(clock.window_start, clock.history_start), clock.running_week)


def range_tags(first: date, last: date) -> dict[str, str]:
    """The tags that make one run cover the weeks from `first` to `last` (Mondays)."""
    return {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }


def refresh_schedules(
    timezone: str, schedule: ScheduleSettings, load: Callable[[], Settings]
) -> list[dg.ScheduleDefinition]:
    """The weekly and the monthly refresh; both cover the window, and read only weeks that changed.

    The window is that of the moment: a code server runs for months, so `load` reads the configuration at every tick.
    """

    def one(name: str, cron: str, description: str) -> dg.ScheduleDefinition:
        @dg.schedule(
            name=name,
            job=refresh,
            cron_schedule=cron,
            execution_timezone=timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=description,
        )
        def asks_for_the_window() -> dg.RunRequest:
            return dg.RunRequest(tags=window_tags(load().clock))

        return asks_for_the_window

    return [
        one("weekly_refresh", schedule.weekly, "The week that has just ended."),
        one("monthly_refresh", schedule.monthly, "The month that has just ended."),
    ]
