"""The warehouse as it was known when a week had ended: what came later is out of sight.

Belongs here: hiding the future, once, for everything that is trained or tested on the past. Does not: what is made of
the past (`risk_features.py`), or what came of it afterwards (`sql/risk_outcomes.sql`).

Usage is cut at the week. Subscriptions are those of the history's delivery of that time; where the history does not
reach back so far, those of its first delivery, without the ends, notices, renewals and values that only later
times know.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import duckdb

from usage_pipeline.config.settings import Settings
from usage_pipeline.config.source_schemas import SUBSCRIPTIONS
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import literal, load_sql, run_sql
from usage_pipeline.ingestion.deliveries import delivered_at, deliveries
from usage_pipeline.ingestion.lake import connect
from usage_pipeline.ingestion.reference import Delivery, load_reference, reading_of, settled_mapping
from usage_pipeline.ingestion.sources import RAW, SourceError
from usage_pipeline.privacy.encryption import open_parquet

_SCHEMAS = ("ref", "core")
_USAGE = ("weeks", "weekly_usage", "weekly_users")
# a run in the days after a week knows that week's subscriptions; one a week later may know better, which is no help
_DAYS_AFTER = 14


@dataclass
class History:
    """An open warehouse; `at(week)` turns it back."""

    connection: duckdb.DuckDBPyConnection
    settings: Settings
    unreadable: list[str] = field(default_factory=list)
    _loaded: Path | None = None

    def at(self, week: date) -> duckdb.DuckDBPyConnection:
        """The connection, in which `core.weeks`, `core.weekly_usage`, `core.weekly_users`,
        `core.subscription_periods` and `core.subscribed` hold what was known when `week` (a Monday) had ended."""
        connection = self.connection
        for table in _USAGE:
            connection.execute(
                f"CREATE OR REPLACE VIEW core.{table} AS FROM warehouse.core.{table} "
                f"WHERE week_start <= DATE {literal(week)}"
            )
        is_of_then = self._load_subscriptions(week)
        values = sql_values(self.settings) | {"as_of_week": week, "is_of_then": is_of_then}
        for schema, name in (("ref", "subscriptions"), ("core", "subscription_periods"), ("core", "subscribed")):
            sql = (
                load_sql("activity", name)
                if name == "subscription_periods"
                else load_sql("predictions", f"known_{name}")
            )
            run_sql(connection, f"CREATE OR REPLACE TABLE {schema}.{name} AS {sql}", values)
        return connection

    def _load_subscriptions(self, week: date) -> bool:
        """Brings `ref.subscriptions_delivered` to what the history knew of the week; whether it is of that time."""
        source = self.settings.sources.subscriptions
        files = [
            file
            for file in deliveries(self.settings.home.history_dir, SUBSCRIPTIONS.name)
            if str(file) not in self.unreadable
        ]
        of_then = [file for file in files if delivered_at(file).date() < week + timedelta(days=_DAYS_AFTER)]
        if source is None or not files:
            load_reference(self.connection, SUBSCRIPTIONS, Delivery(None, 0, False, None))
            self.connection.execute("CREATE OR REPLACE TABLE ref.delivered AS FROM ref.subscriptions")
            return False
        file = of_then[-1] if of_then else files[0]
        if file != self._loaded:
            open_parquet(self.connection, file, RAW)
            try:
                reading = reading_of(self.settings.timezone, self.settings.currency, source)
                mapping = settled_mapping(self.connection, reading, source, SUBSCRIPTIONS)
            except SourceError:
                # of a time when its columns were others: the next one that can be read tells it
                self.unreadable.append(str(file))
                return self._load_subscriptions(week)
            load_reference(self.connection, SUBSCRIPTIONS, Delivery(file, 0, False, mapping))
            self.connection.execute("CREATE OR REPLACE TABLE ref.delivered AS FROM ref.subscriptions")
            self._loaded = file
        return bool(of_then)


@contextmanager
def open_history(settings: Settings) -> Iterator[History]:
    """The warehouse file, read only, attached as `warehouse`; whoever asks holds its lock."""
    connection = connect()
    try:
        connection.execute(f"ATTACH {literal(settings.home.warehouse_path)} AS warehouse (READ_ONLY)")
        for schema in _SCHEMAS:
            connection.execute(f"CREATE SCHEMA {schema}")
        yield History(connection, settings)
    finally:
        connection.close()
