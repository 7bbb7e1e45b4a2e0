"""The weekly partitions: keys are Mondays, and the running week is a partition too."""

from datetime import UTC, date, datetime

import dagster as dg

from usage_pipeline.config.clock import Clock
from usage_pipeline.core.weeks import WEEK, monday_of


def weekly_partitions(clock: Clock) -> dg.WeeklyPartitionsDefinition:
    """Partitions from the first week of the history to the running week of `as_of`.

    Where as_of is pinned, they end there, be it in the past or ahead; otherwise they go on with the clock.
    """
    end = (clock.running_week + WEEK).isoformat() if clock.is_pinned else None
    # a pinned end is reached even where it lies ahead of this machine's clock; one more, for its days in other zones
    ahead = (clock.running_week - monday_of(datetime.now(UTC).date())) // WEEK + 2
    return dg.WeeklyPartitionsDefinition(
        start_date=clock.history_start.isoformat(),
        end_date=end,
        timezone=clock.timezone,
        day_offset=1,  # weeks begin on Monday
        # the running week has a partition
        end_offset=max(ahead, 1) if end else 1,
    )


def short_run_id(run_id: str) -> str:
    """A run as people call it: in manifests, and in what is said to those that wait for it."""
    return f"run {run_id[:8]}"


def partition_weeks(context: dg.AssetExecutionContext) -> list[date]:
    """The Mondays of the partitions that a run is asked for, one or many."""
    return [date.fromisoformat(key) for key in context.partition_keys]
