"""Spikes and usage drops: what was expected of every week, what is anomalous, and what was said when it was new."""

from typing import Any

import dagster as dg

from usage_pipeline.anomalies import usage_anomalies
from usage_pipeline.config.settings import Settings
from usage_pipeline.defs.lineage import Step, deps_of
from usage_pipeline.defs.tables import OWNERS, POOL, code_of, keep_or_make, proposal_result, sql_table
from usage_pipeline.publishing.history import history_locked, promote
from usage_pipeline.resources import Warehouse


@dg.asset(
    key="anomalies",
    group_name="anomalies",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=deps_of(
        "anomalies",
        Step(
            python={
                "core.anomalies": tuple(usage_anomalies.ANOMALY_COLUMNS),
                "core.expected_usage": usage_anomalies.EXPECTED_COLUMNS,
                "core.anomaly_rates": tuple(usage_anomalies.RATE_COLUMNS),
            },
            runs=["anomalies/series", "anomalies/series_weeks"],
            reads=["core.weeks"],
        ),
    ),
    pool=POOL,
    code_version=code_of("anomalies", "defs/anomalies"),
)
def anomalies_asset(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """Weeks out of the ordinary, of an application of an account, of an application over all accounts, or of all.

    Beside it `expected_usage`: what was expected of every subscribed week, with its variance.

    One row: scope x account x application x measure x anomalous week.
    """
    found: dict[str, Any] = {}
    with warehouse.get_connection() as connection:
        keep_or_make(
            context,
            connection,
            settings,
            lambda: found.update(usage_anomalies.replace_anomalies(connection, settings.anomalies)),
            {"anomalies": settings.anomalies.model_dump()},
        )
        counts = connection.execute(
            "SELECT scope || ', ' || confidence, count(*) FROM core.anomalies WHERE measure = 'clicks' GROUP BY 1"
        ).fetchall()
        rows = connection.execute("SELECT count(*) FROM core.anomalies").fetchone()
    assert rows is not None
    found |= {"dagster/row_count": rows[0], "anomalies_on_clicks": dg.MetadataValue.json(dict(counts))}
    return dg.MaterializeResult(metadata=found)


@dg.asset(
    key="anomaly_snapshots",
    group_name="anomalies",
    kinds={"parquet", "python"},
    owners=OWNERS,
    deps=deps_of("anomaly_snapshots", Step(reads=["core.anomalies", "core.weeks"])),
    pool=POOL,
)
def anomaly_snapshots(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """The anomalies of the newest complete week as they were when they were new, kept for good once they are published.

    One file: a complete week; written once, whatever late data and other settings make of that week afterwards.
    """
    with history_locked(settings.home, settings.ingest.wait_seconds):
        promote(settings.home)
        with warehouse.read() as connection:
            proposal = usage_anomalies.propose_anomaly_snapshot(
                connection, settings.home.history_dir, settings.clock.as_of
            )
    return proposal_result(context, proposal, "anomalies")


ANOMALY_TABLES = [
    anomalies_asset,
    anomaly_snapshots,
    sql_table(
        "anomaly_weeks",
        schema="mart",
        group="anomalies",
        description="The anomalies of the last weeks in words: how far, since when, who stopped, what is known of it.",
    ),
    sql_table(
        "anomaly_rates",
        schema="mart",
        group="anomalies",
        description="What share of all weeks is listed, by thresholds that were learned on earlier ones, and whether "
        "this lake has taught them yet.",
    ),
    sql_table(
        "platform_events",
        schema="mart",
        group="anomalies",
        description="What all accounts, or all accounts of an application, did together: one event, nobody's anomaly.",
    ),
]
