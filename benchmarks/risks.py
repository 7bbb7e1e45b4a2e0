"""Risks over a whole fleet: features, back-test, training and scoring. Part of `make benchmark`.

3,000 accounts that own all 20 applications over 104 weeks, with a tenth of the subscriptions cancelled: 60,000 series.
"""

import resource
import time
from datetime import UTC, datetime

import duckdb

from benchmarks.activity import write_accounts
from usage_pipeline.config.settings import Settings, Source
from usage_pipeline.config.source_schemas import SUBSCRIPTIONS
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core.sql import literal
from usage_pipeline.ingestion.reference import take_delivery
from usage_pipeline.predictions import risks
from usage_pipeline.predictions.point_in_time import open_history
from usage_pipeline.resources import warehouse_of
from usage_pipeline_tests.support.histories import TABLES, make_table

AS_OF = datetime(2025, 12, 31, tzinfo=UTC)


def measure(settings: Settings, accounts: int = 3000, applications: int = 20, weeks: int = 104) -> dict[str, float]:
    """Seconds of each step, and the peak of the process, in GB."""
    file = settings.home.root / "subscriptions.parquet"
    source = Source(path=str(file), columns={name: name for name in SUBSCRIPTIONS.names})
    sources = settings.sources.model_copy(update={"subscriptions": source})
    settings = settings.model_copy(update={"as_of": AS_OF, "sources": sources})
    warehouse = warehouse_of(settings.home, settings.ingest.wait_seconds)
    file.parent.mkdir(parents=True, exist_ok=True)
    settings.home.warehouse_path.parent.mkdir(parents=True, exist_ok=True)
    with warehouse.get_connection() as connection:
        write_accounts(connection, accounts, applications, weeks)
        _write_people(connection)
        values = sql_values(settings) | {"as_of_day": AS_OF.date()}
        for table in TABLES:
            make_table(connection, table, settings, values)
        connection.execute(f"COPY ref.subscriptions TO {literal(file)}")
    take_delivery(settings, SUBSCRIPTIONS)
    seconds: dict[str, float] = {}
    with open_history(settings) as history:
        started = time.perf_counter()
        chosen = risks.weeks_of_as_of(history)
        risks.with_features(history, chosen)
        seconds[f"features and outcomes of {len(chosen)} weeks"] = time.perf_counter() - started
        learned = []
        for target in risks.TARGETS:
            started = time.perf_counter()
            rows = risks.rows_of(history, target)
            learned.append(risks.learn_target(rows, target, settings.risk, settings.activity.inactive_weeks))
            name = f"{target.key}: back-test and training, {len(rows):,} rows, {learned[-1].decision.method}"
            seconds[name] = time.perf_counter() - started
        folder = risks.folder_of(settings)
        risks.keep(learned, folder, settings.risk, settings.activity)
    with open_history(settings) as history:
        started = time.perf_counter()
        scores = risks.score_newest_week(history, folder)
        seconds[f"weekly scoring, {len(scores):,} probabilities"] = time.perf_counter() - started
    seconds["together"] = sum(seconds.values())
    seconds["peak, GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return seconds


def _write_people(connection: duckdb.DuckDBPyConnection) -> None:
    """Three users a week, and usage that fades before a subscription ends."""
    connection.execute(
        "UPDATE core.weekly_usage AS usage SET clicks = usage.clicks // 4 FROM ref.subscriptions AS ending "
        "WHERE usage.account_id = ending.account_id AND usage.application = ending.application "
        "AND usage.week_start BETWEEN ending.end_date - 120 AND ending.end_date"
    )
    connection.execute(
        "CREATE TABLE core.weekly_users AS SELECT week_start, account_id, application, 'user_' || u AS user_id, "
        "greatest(clicks // 3, 1) AS clicks, 0::BIGINT AS records_created, 1::BIGINT AS source_rows, first_day, "
        "last_day FROM core.weekly_usage, range(3) AS r (u)"
    )
