"""Health of subscriptions and accounts: 0 to 100, with its arithmetic, as issued, and tested on what became of them.

All tables are whole tables; a second run replaces them. Of past weeks it is computed with what is on record of them
today, a quarter apart, for the back-test alone; what people were shown is in history.
"""

from typing import Any

import dagster as dg

from usage_pipeline.config.settings import Settings
from usage_pipeline.defs.lineage import Step, deps_of
from usage_pipeline.defs.tables import OWNERS, POOL, code_of, proposal_result, sql_table
from usage_pipeline.publishing.history import (
    HEALTH,
    history_locked,
    newest_complete_week,
    promote,
    propose_newest_week,
)
from usage_pipeline.publishing.snapshots import Snapshots
from usage_pipeline.resources import Warehouse

ISSUED = Snapshots(
    HEALTH,
    "core.issued_health",
    {
        "as_of_week": "DATE",
        "account_id": "VARCHAR",
        "application_key": "VARCHAR",
        "health": "DOUBLE",
        "health_color": "VARCHAR",
        "biggest_factor": "VARCHAR",
        "health_reason": "VARCHAR",
    },
)
_PROPOSED = """
SELECT
    CAST($week AS DATE) AS as_of_week,
    account_id,
    application_key,
    health,
    health_color,
    biggest_factor,
    health_reason
FROM mart.account_health
ORDER BY account_id, application_key
"""


@dg.asset(
    group_name="health",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=deps_of("issued_health", Step(python={ISSUED.table: ISSUED.all_columns}, reads=["core.weeks"])),
    pool=POOL,
    code_version=code_of("publishing", "defs/health"),
)
def issued_health(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """Health as people saw it in the weeks before: what a change is counted from.

    One row: week x account x application (or the account as a whole).
    """
    with history_locked(settings.home, settings.ingest.wait_seconds):
        promote(settings.home)
        with warehouse.get_connection() as connection:
            weeks = ISSUED.replace(connection, settings.home.history_dir, before=newest_complete_week(connection))
    return dg.MaterializeResult(metadata={"weeks": weeks})


@dg.asset(
    group_name="health",
    kinds={"parquet", "python"},
    owners=OWNERS,
    deps=deps_of("health_snapshots", Step(reads=["mart.account_health", "core.weeks"])),
    pool=POOL,
    code_version=code_of("publishing", "defs/health"),
)
def health_snapshots(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """Health of the newest complete week as it is shown, kept for good once it is published.

    One file: a complete week; written once, whatever late data make of that week afterwards.
    """
    with history_locked(settings.home, settings.ingest.wait_seconds), warehouse.read() as connection:
        proposal = propose_newest_week(connection, settings.home.history_dir, settings.clock.as_of, HEALTH, _PROPOSED)
    return proposal_result(context, proposal, "health")


HEALTH_TABLES = [
    issued_health,
    sql_table(
        "health_inputs",
        schema="core",
        group="health",
        description="What health is made of, in the newest week and a quarter, two quarters ... before it.",
    ),
    sql_table(
        "health_factors",
        schema="core",
        group="health",
        description="Each factor of health as measured, scored from 0 to 100, and weighed.",
    ),
    sql_table(
        "health_scores",
        schema="core",
        group="health",
        description="Health and its color in the newest week, and in those of the back-test.",
    ),
    sql_table(
        "health_factor_points",
        schema="mart",
        group="health",
        description="How the health of an account or application adds up, factor by factor.",
    ),
    sql_table(
        "account_health",
        schema="mart",
        group="health",
        description="Health from 0 to 100, its color, what holds it down, and its change since last week.",
    ),
    sql_table(
        "health_backtest",
        schema="mart",
        group="health",
        description="What became of green, amber and red within 90 and 180 days, by quarter.",
    ),
    health_snapshots,
]
