"""When the pipeline runs by itself."""

import dagster as dg

from usage_pipeline.config import Settings

refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.all(),
    description="Everything: the weeks of the window that changed, all tables, the build, the dashboards.",
)


def window_tags(settings: Settings) -> dict[str, str]:
    """The tags that make one run cover all weeks of the look-back window."""
    first = max(settings.window_start, settings.history_start)
    return {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": settings.running_week.isoformat(),
    }


def weekly_schedule(settings: Settings) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="weekly_refresh",
        job=refresh,
        cron_schedule="0 6 * * 1",
        execution_timezone=settings.timezone,
        description="Mondays at 06:00: the week that has just ended.",
    )
    def weekly_refresh() -> dg.RunRequest:
        return dg.RunRequest(tags=window_tags(settings))

    return weekly_refresh
