"""Spikes and drop-offs: what was expected of every week, what is flagged, and what was said when it was new."""

from inspect import getsource
from typing import Any

import dagster as dg

from usage_pipeline.anomalies import detector, holidays, usage_anomalies
from usage_pipeline.config.settings import Settings
from usage_pipeline.defs.tables import OWNERS, POOL, code_version, proposal_result, sql_table
from usage_pipeline.defs.usage.assets import NAMES
from usage_pipeline.publishing.history import history_held, promote
from usage_pipeline.resources import Warehouse


@dg.asset(
    key="usage_flags",
    group_name="spikes",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=["pairs", "usage_grid", "weeks", "account_names"],
    pool=POOL,
    code_version=code_version(*(getsource(module) for module in (detector, usage_anomalies, holidays))),
)
def usage_flags_asset(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """Weeks out of the ordinary, of an application of an account, of an application over all accounts, or of all.

    Beside it `expected_usage`: what was expected of every week in contract, with its variance.

    One row: scope x account x application x measure x flagged week.
    """
    with warehouse.get_connection() as connection:
        found: dict[str, Any] = usage_anomalies.replace_usage_flags(connection, settings)
        counts = connection.execute(
            "SELECT scope || ', ' || tier, count(*) FROM core.usage_flags WHERE measure = 'clicks' GROUP BY 1"
        ).fetchall()
        rows = connection.execute("SELECT count(*) FROM core.usage_flags").fetchone()
    assert rows is not None
    found |= {"dagster/row_count": rows[0], "flags_on_clicks": dg.MetadataValue.json(dict(counts))}
    return dg.MaterializeResult(metadata=found)


@dg.asset(
    key="issued_flags",
    group_name="spikes",
    kinds={"parquet", "python"},
    owners=OWNERS,
    deps=["usage_flags"],
    pool=POOL,
)
def issued_flags(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """The flags of the newest complete week as they were when they were new, kept for good once they are published.

    One file: a complete week; written once, whatever late data and other settings make of that week afterwards.
    """
    with history_held(settings):
        promote(settings)
        with warehouse.read() as connection:
            proposal = usage_anomalies.propose_anomaly_snapshot(connection, settings)
    return proposal_result(context, proposal, "flags")


SPIKE_TABLES = [
    usage_flags_asset,
    issued_flags,
    sql_table(
        "flagged_weeks",
        schema="mart",
        group="spikes",
        deps=["usage_flags", "pairs", "usage_grid", "weekly_usage", "weeks", "known_causes", *NAMES],
        description="The flags of the last weeks in words: how far, since when, who stopped, what is known of it.",
    ),
    sql_table(
        "fleet_events",
        schema="mart",
        group="spikes",
        deps=["flagged_weeks"],
        description="What all accounts, or all accounts of an application, did together: one event, nobody's flag.",
    ),
]
