"""What reacts: to the lake, with a run for exactly the weeks that changed; to runs, with the status file; to outcomes
that people record, with the file that pages read them from, and with a run where a kind of reason moves down for them.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import date

import dagster as dg
import duckdb

from usage_pipeline.config.settings import ConfigError, ScheduleSettings, Settings
from usage_pipeline.core.locks import LockTimeoutError
from usage_pipeline.core.weeks import contiguous_ranges
from usage_pipeline.defs.schedules import range_tags, refresh
from usage_pipeline.ingestion.facts import outdated_weeks
from usage_pipeline.ingestion.lake import LakeError
from usage_pipeline.observability.status import write_status
from usage_pipeline.operations.metrics import MetricsError, write_metrics
from usage_pipeline.outcomes.answers import moved_down
from usage_pipeline.outcomes.database import renew_outcomes
from usage_pipeline.outcomes.records import read_records

# with the daemon's own pace, an answer is on the pages within a minute
_OUTCOMES_SECONDS = 15
_UNDER_WAY = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


def lake_sensor(schedule: ScheduleSettings, load: Callable[[], Settings]) -> dg.SensorDefinition:
    """Looks at the lake and asks for the weeks that are new or changed; `load` reads the configuration as it is now.

    Where nothing is, and other kinds of reasons than at the last run are called useless by too many, it asks for a run
    of the current week: priorities change with it. A note or an answer that moves no kind is no reason for a run.

    What is done is what the facts' manifests say, so a week of a failed run is asked for again, and so is a run that
    failed after its facts were written; up to `schedule.max_attempts` times for the same change. The cursor holds that
    change and the number of attempts.
    """

    @dg.sensor(
        name="lake_week_sensor",
        job=refresh,
        minimum_interval_seconds=schedule.poll_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A run for exactly the weeks that are new or changed in the lake.",
    )
    def new_weeks(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        newest = context.instance.get_run_records(dg.RunsFilter(job_name=refresh.name), limit=1)
        under_way = context.instance.get_run_records(dg.RunsFilter(job_name=refresh.name, statuses=_UNDER_WAY), limit=1)
        if under_way:
            return dg.SkipReason(f"run {under_way[0].dagster_run.run_id} is under way")
        try:
            settings = load()
            weeks = outdated_weeks(settings)
        except (ConfigError, LakeError) as error:
            return dg.SkipReason(str(error))
        moved = moved_down(
            read_records(settings.home.feedback_dir, settings.home.history_dir),
            settings.clock.as_of_day,
            settings.outcomes,
        )
        wanted = [range_tags(first, last) for first, last in contiguous_ranges(sorted(weeks))]
        what = f"{len(weeks)} weeks changed"
        if not wanted and newest and newest[0].dagster_run.status == dg.DagsterRunStatus.FAILURE:
            run = newest[0].dagster_run
            wanted = [{key: run.tags[key] for key in range_tags(date.min, date.min) if key in run.tags}]
            what = f"run {run.run_id} failed after its facts were written"
        if not wanted and _moved_down_before(context.instance) not in (None, moved):
            wanted = [range_tags(settings.clock.running_week, settings.clock.running_week)]
            what = f"kinds of reasons that move down are {', '.join(moved) or 'none'}"
        if not wanted:
            return dg.SkipReason("nothing new in the lake")
        change = hashlib.sha256(repr((sorted(weeks.items()), wanted, moved)).encode()).hexdigest()[:12]
        before = json.loads(context.cursor) if context.cursor else {}
        attempts = before.get("attempts", 0) + 1 if before.get("change") == change else 1
        if attempts > schedule.max_attempts:
            return dg.SkipReason(
                f"{what}, and {schedule.max_attempts} runs for that failed: see their logs, then start a run by hand"
            )
        requests = [dg.RunRequest(tags=tags) for tags in wanted]
        return dg.SensorResult(run_requests=requests, cursor=json.dumps({"change": change, "attempts": attempts}))

    return new_weeks


def _moved_down_before(instance: dg.DagsterInstance) -> list[str] | None:
    """The kinds of reasons that moved down in the last run that looked; None before one has."""
    event = instance.get_latest_materialization_event(dg.AssetKey("reason_usefulness"))
    known = event.asset_materialization.metadata.get("moved_down") if event and event.asset_materialization else None
    return [str(kind) for kind in known.value or ()] if isinstance(known, dg.JsonMetadataValue) else None


def status_sensors(load: Callable[[], Settings]) -> list[dg.SensorDefinition]:
    def sensor(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
        @dg.run_status_sensor(
            name=f"status_after_{status.value.lower()}",
            run_status=status,
            default_status=dg.DefaultSensorStatus.RUNNING,
            description="Writes the status file, and metrics where they are enabled.",
        )
        def after_run(context: dg.RunStatusSensorContext) -> None:
            settings = load()
            write_status(settings.home, settings.clock, settings.sources, context.instance)
            try:
                write_metrics(settings)
            except MetricsError as error:
                context.log.warning(str(error))

        return after_run

    ends = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    return [sensor(status) for status in ends]


def outcome_sensor(load: Callable[[], Settings]) -> dg.SensorDefinition:
    """Makes the call list with its outcomes anew where somebody has answered, or another build is shown."""

    @dg.sensor(
        name="outcomes",
        job=refresh,
        minimum_interval_seconds=_OUTCOMES_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Brings outcomes that people record onto the call list within a minute; asks for no run.",
    )
    def outcomes() -> dg.SkipReason:
        try:
            settings = load()
            is_new = renew_outcomes(settings.home, settings.clock, settings.outcomes)
        except (ConfigError, LockTimeoutError, OSError, duckdb.Error) as error:
            return dg.SkipReason(str(error))
        return dg.SkipReason("brought to the pages" if is_new else "nothing new")

    return outcomes
