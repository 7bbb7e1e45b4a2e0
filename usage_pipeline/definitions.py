"""The only entry point: everything that Dagster sees. The configuration is read when definitions are asked for."""

from collections.abc import Callable

import dagster as dg

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.files import keep_private
from usage_pipeline.defs.activity.assets import ACTIVITY_TABLES
from usage_pipeline.defs.activity.checks import ACTIVITY_CHECKS
from usage_pipeline.defs.anomalies.assets import ANOMALY_TABLES
from usage_pipeline.defs.anomalies.checks import ANOMALY_CHECKS
from usage_pipeline.defs.health.assets import HEALTH_TABLES
from usage_pipeline.defs.health.checks import HEALTH_CHECKS
from usage_pipeline.defs.ingestion.assets import ingest_assets
from usage_pipeline.defs.ingestion.checks import INGEST_CHECKS
from usage_pipeline.defs.kpis.assets import KPI_TABLES
from usage_pipeline.defs.kpis.checks import KPI_CHECKS
from usage_pipeline.defs.notifications.assets import crm_files, digests, messages
from usage_pipeline.defs.notifications.checks import NOTIFICATION_CHECKS
from usage_pipeline.defs.notifications.sensors import alert_sensor, digest_retry, outbox_sensor, send_digests
from usage_pipeline.defs.outreach.assets import OUTREACH_TABLES
from usage_pipeline.defs.outreach.checks import OUTREACH_CHECKS
from usage_pipeline.defs.partitions import weekly_partitions
from usage_pipeline.defs.people.assets import PEOPLE_TABLES
from usage_pipeline.defs.people.checks import PEOPLE_CHECKS
from usage_pipeline.defs.predictions.assets import PREDICTION_TABLES
from usage_pipeline.defs.predictions.checks import PREDICTION_CHECKS
from usage_pipeline.defs.publish.assets import publish_assets
from usage_pipeline.defs.publish.checks import PUBLISH_CHECKS
from usage_pipeline.defs.revenue.assets import REVENUE_TABLES
from usage_pipeline.defs.revenue.checks import REVENUE_CHECKS
from usage_pipeline.defs.schedules import refresh, refresh_schedules
from usage_pipeline.defs.sensors import lake_sensor, outcome_sensor, status_sensors
from usage_pipeline.defs.usage.assets import usage_assets
from usage_pipeline.defs.usage.checks import USAGE_CHECKS
from usage_pipeline.operations.console_log import console_log
from usage_pipeline.resources import warehouse_of


def build_definitions(settings: Settings, load: Callable[[], Settings] | None = None) -> dg.Definitions:
    """The definitions of one configuration; sensors and schedules ask `load` for it as it is at their tick."""
    load = load or (lambda: settings)
    weeks = weekly_partitions(settings.clock)
    return dg.Definitions(
        assets=[
            *ingest_assets(weeks),
            *usage_assets(weeks),
            *ACTIVITY_TABLES,
            *ANOMALY_TABLES,
            *PREDICTION_TABLES,
            *HEALTH_TABLES,
            *PEOPLE_TABLES,
            *OUTREACH_TABLES,
            *KPI_TABLES,
            *REVENUE_TABLES,
            *publish_assets(),
            digests,
            messages,
            crm_files,
        ],
        asset_checks=[
            *INGEST_CHECKS,
            *USAGE_CHECKS,
            *ACTIVITY_CHECKS,
            *ANOMALY_CHECKS,
            *PREDICTION_CHECKS,
            *HEALTH_CHECKS,
            *PEOPLE_CHECKS,
            *OUTREACH_CHECKS,
            *KPI_CHECKS,
            *REVENUE_CHECKS,
            *PUBLISH_CHECKS,
            *NOTIFICATION_CHECKS,
        ],
        jobs=[refresh, send_digests],
        schedules=[*refresh_schedules(settings.timezone, settings.schedule, load), digest_retry(load)],
        sensors=[
            lake_sensor(settings.schedule, load),
            *status_sensors(load),
            alert_sensor(load),
            outbox_sensor(load),
            outcome_sensor(load),
        ],
        resources={"warehouse": warehouse_of(settings.home, settings.ingest.wait_seconds), "settings": settings},
        executor=dg.in_process_executor,
        loggers={"console": console_log},
    )


@dg.definitions
def defs() -> dg.Definitions:
    keep_private()  # a code server may be started by hand
    return build_definitions(load_settings(), load_settings)
