"""What looks by itself: for incidents to tell of, for messages that wait, and for digests that could not be sent."""

import sqlite3
from collections.abc import Callable
from datetime import datetime

import dagster as dg
import duckdb

from usage_pipeline.config.settings import ConfigError, Settings
from usage_pipeline.core.locks import LockTimeoutError
from usage_pipeline.defs.notifications.assets import digests
from usage_pipeline.defs.schedules import refresh
from usage_pipeline.notifications.alerts import LOOKED_AT, look, raise_alerts
from usage_pipeline.notifications.digest import worth_another_try
from usage_pipeline.notifications.messages import send_waiting

_POLL_INTERVAL_SECONDS = 300
_OUTBOX_SECONDS = 60

# of its own, so that no refresh that failed looks mended by it
send_digests = dg.define_asset_job(
    "send_digests", selection=[digests], description="Sends again what could not be sent; brings no new numbers."
)


def alert_sensor(load: Callable[[], Settings]) -> dg.SensorDefinition:
    """Tells the data team of failed runs, stale data and held-back deliveries, once per incident; asks for no run."""

    @dg.sensor(
        name="alerts",
        job=refresh,
        minimum_interval_seconds=_POLL_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the data team of failed runs, stale data and held-back deliveries, once at begin and end.",
    )
    def alerts() -> dg.SkipReason:
        said: list[str] = []
        try:
            settings, now = load(), datetime.now().astimezone()
            raise_alerts(
                settings.home,
                settings.mail,
                settings.notify,
                settings.name,
                look(settings, now),
                LOOKED_AT,
                now,
                said.append,
            )
        except (ConfigError, LockTimeoutError, OSError, duckdb.Error, sqlite3.Error) as error:
            return dg.SkipReason(str(error))
        return dg.SkipReason("; ".join(said) or "nothing to tell")

    return alerts


def outbox_sensor(load: Callable[[], Settings]) -> dg.SensorDefinition:
    """Sends what waits in the outbox and is due; asks for no run."""

    @dg.sensor(
        name="outbox",
        job=refresh,
        minimum_interval_seconds=_OUTBOX_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends messages to chat and webhooks that were not taken before, a bounded number of times.",
    )
    def outbox() -> dg.SkipReason:
        said: list[str] = []
        try:
            send_waiting(load(), said.append)
        except (ConfigError, LockTimeoutError, OSError, sqlite3.Error) as error:
            return dg.SkipReason(str(error))
        return dg.SkipReason("; ".join(said) or "nothing is due")

    return outbox


def digest_retry(load: Callable[[], Settings]) -> dg.ScheduleDefinition:
    """Once an hour, where digests of the newest week could not be sent: tries again, but no address that is refused."""

    @dg.schedule(
        name="digest_retry",
        job=send_digests,
        cron_schedule="23 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Sends digests that could not be sent, once the mail server takes them.",
    )
    def tries_again() -> dg.RunRequest | dg.SkipReason:
        settings = load()
        if not worth_another_try(settings.home, settings.clock, settings.completeness, settings.mail):
            return dg.SkipReason("every digest was sent, or refused for good")
        return dg.RunRequest()

    return tries_again
