"""The only entry point: everything that Dagster sees. The configuration is read when definitions are asked for."""

import logging
from collections.abc import Callable

import dagster as dg

from usage_pipeline.config import Settings, load_settings
from usage_pipeline.defs.activity.assets import ACTIVITY_TABLES
from usage_pipeline.defs.activity.checks import ACTIVITY_CHECKS
from usage_pipeline.defs.calls.assets import CALL_TABLES
from usage_pipeline.defs.calls.checks import CALL_CHECKS
from usage_pipeline.defs.ingest.assets import ingest_assets
from usage_pipeline.defs.ingest.checks import INGEST_CHECKS
from usage_pipeline.defs.kpis.assets import KPI_TABLES
from usage_pipeline.defs.kpis.checks import KPI_CHECKS
from usage_pipeline.defs.mail.assets import digests
from usage_pipeline.defs.mail.checks import MAIL_CHECKS
from usage_pipeline.defs.mail.sensors import alarm_sensor, digests_again, send_digests
from usage_pipeline.defs.partitions import weekly_partitions
from usage_pipeline.defs.predictions.assets import PREDICTION_TABLES
from usage_pipeline.defs.predictions.checks import PREDICTION_CHECKS
from usage_pipeline.defs.publish.assets import publish_assets
from usage_pipeline.defs.publish.checks import PUBLISH_CHECKS
from usage_pipeline.defs.schedules import refresh, refresh_schedules
from usage_pipeline.defs.sensors import lake_sensor, status_sensors
from usage_pipeline.defs.spikes.assets import SPIKE_TABLES
from usage_pipeline.defs.spikes.checks import SPIKE_CHECKS
from usage_pipeline.defs.usage.assets import usage_assets
from usage_pipeline.defs.usage.checks import USAGE_CHECKS
from usage_pipeline.lib.files import keep_private
from usage_pipeline.resources import warehouse_of


class _Plain(logging.Formatter):
    """`asset: message`; of an error the cause alone: the whole of it is in the Dagster UI."""

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {})
        step = meta.get("step_key") or meta.get("job_name") or ""
        text = meta.get("orig_message") or record.getMessage()
        event = meta.get("dagster_event")
        if event is not None and event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            # of what we raise as a failure, the sentence alone
            said = (error.cause or error).message.strip().removeprefix(f"{dg.Failure.__module__}.Failure: ")
            text = f"FAILED: {said}"
        return f"  {step}: {text}"


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Not that a step waits for one that failed: a hundred of those would bury the sentence that says why."""
    said = getattr(record, "dagster_meta", {}).get("orig_message") or ""
    return not said.startswith("Dependencies for step ")


@dg.logger(None, "One plain line a message, for people who start a run from the command line.")
def plain_console(_: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("usage_pipeline", logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    handler.addFilter(_is_worth_a_line)
    logger.addHandler(handler)
    return logger


def build_definitions(settings: Settings, load: Callable[[], Settings] | None = None) -> dg.Definitions:
    """The definitions of one configuration; sensors and schedules ask `load` for it as it is at their tick."""
    load = load or (lambda: settings)
    weeks = weekly_partitions(settings)
    return dg.Definitions(
        assets=[
            *ingest_assets(weeks),
            *usage_assets(weeks),
            *ACTIVITY_TABLES,
            *SPIKE_TABLES,
            *PREDICTION_TABLES,
            *CALL_TABLES,
            *KPI_TABLES,
            *publish_assets(),
            digests,
        ],
        asset_checks=[
            *INGEST_CHECKS,
            *USAGE_CHECKS,
            *ACTIVITY_CHECKS,
            *SPIKE_CHECKS,
            *PREDICTION_CHECKS,
            *CALL_CHECKS,
            *KPI_CHECKS,
            *PUBLISH_CHECKS,
            *MAIL_CHECKS,
        ],
        jobs=[refresh, send_digests],
        schedules=[*refresh_schedules(settings, load), digests_again(load)],
        sensors=[lake_sensor(settings, load), *status_sensors(load), alarm_sensor(load)],
        resources={"warehouse": warehouse_of(settings), "settings": settings},
        executor=dg.in_process_executor,
        loggers={"console": plain_console},
    )


@dg.definitions
def defs() -> dg.Definitions:
    keep_private()  # a code server may be started by hand
    return build_definitions(load_settings(), load_settings)
