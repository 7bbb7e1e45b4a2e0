"""The call list: whom to call first on a Monday, and why; pages, mail and files show the same rows.

Belongs here: bringing together what the other steps found and what people said of the reasons before, and keeping what
was issued. Does not: finding it (anomalies, states, risks, health), nor what became of a row since: that changes by the
minute, and stands in the file of outcomes (`outcomes/database.py`).
"""

from typing import Any

import dagster as dg
import pyarrow as pa

from usage_pipeline.config.settings import Settings
from usage_pipeline.core.tables import TABLES
from usage_pipeline.defs.lineage import Step, deps_of
from usage_pipeline.defs.tables import OWNERS, POOL, code_of, proposal_result, sql_table, table_metadata
from usage_pipeline.outcomes.database import arrow_schema, usefulness_rows
from usage_pipeline.outcomes.from_crm import take_crm_outcomes
from usage_pipeline.outcomes.records import keep, read_records
from usage_pipeline.publishing.history import CALLS, history_locked, promote, propose_newest_week
from usage_pipeline.publishing.snapshots import Snapshots
from usage_pipeline.resources import Warehouse

ISSUED = Snapshots(
    CALLS,
    "core.call_snapshots",
    {
        "as_of_week": "DATE",
        "rank": "BIGINT",
        "urgency": "VARCHAR",
        "urgency_rank": "BIGINT",
        "account_id": "VARCHAR",
        "account": "VARCHAR",
        "segment": "VARCHAR",
        "region": "VARCHAR",
        "owner": "VARCHAR",
        "reason": "VARCHAR",
        # kind and application key of each reason, in the order of their strength
        "call_reasons": "VARCHAR",
        "news": "VARCHAR",
        "new_reasons": "VARCHAR",
        "applications_at_risk": "BIGINT",
        "arr_at_risk": "DOUBLE",
        "annual_value": "DOUBLE",
        "renewal_date": "DATE",
        "health": "DOUBLE",
        "health_color": "VARCHAR",
    },
)
_PROPOSED = """
SELECT
    CAST($week AS DATE) AS as_of_week,
    calls.* EXCLUDE (renewal_date),
    CAST(calls.renewal_date AS DATE) AS renewal_date,
    (
        SELECT
            string_agg(
                reasons.call_reason || ' / ' || reasons.application_key, ', '
                ORDER BY reasons.urgency_rank, reasons.call_reason, reasons.application_key
            )
        FROM mart.call_reasons AS reasons
        WHERE reasons.account_id = calls.account_id
    ) AS call_reasons
FROM mart.call_list AS calls
ORDER BY calls.rank
"""


@dg.asset(
    group_name="outreach",
    kinds={"parquet", "python"},
    owners=OWNERS,
    deps=deps_of(
        "call_snapshots",
        Step(
            python={ISSUED.table: ISSUED.all_columns},
            reads=["mart.call_list", "mart.call_reasons", "core.weeks"],
        ),
    ),
    pool=POOL,
    code_version=code_of("publishing", "defs/outreach"),
)
def call_snapshots(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """The call list of the newest complete week as people see it, kept for good once it is published; with all before.

    One file: a complete week; written once. One row: week x account.
    """
    with history_locked(settings.home, settings.ingest.wait_seconds):
        promote(settings.home)
        with warehouse.get_connection() as connection:
            columns = ", ".join(ISSUED.columns)
            proposal = propose_newest_week(
                connection,
                settings.home.history_dir,
                settings.clock.as_of,
                CALLS,
                f"SELECT {columns} FROM ({_PROPOSED})",
            )
            weeks = ISSUED.replace(connection, settings.home.history_dir)
    context.log.info(f"{weeks} weeks of the call list are on record")
    return proposal_result(context, proposal, "the call list")


_USEFULNESS = TABLES["reason_usefulness"]


@dg.asset(
    key="reason_usefulness",
    group_name="outreach",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=deps_of(
        "reason_usefulness",
        Step(python={"core.reason_usefulness": _USEFULNESS.column_names}, reads=["ref.crm_outcomes"]),
    ),
    pool=POOL,
    code_version=code_of("outcomes", "defs/outreach"),
    metadata=table_metadata("reason_usefulness"),
)
def reason_usefulness(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """How useful people called each kind of reason; one that too many call useless comes one priority lower.

    Copies outcomes that history does not have yet, those of the form and those of the CRM.
    One row: a kind of reason that was answered.
    """
    with history_locked(settings.home, settings.ingest.wait_seconds), warehouse.get_connection() as connection:
        kept = keep(settings.home.feedback_dir, settings.home.history_dir)
        of_crm = take_crm_outcomes(connection, settings.home, settings.clock)
        records = read_records(settings.home.feedback_dir, settings.home.history_dir)
        rows = usefulness_rows(records, settings.clock.as_of_day, settings.outcomes, set())
        connection.register("given", pa.Table.from_pylist(rows, schema=arrow_schema(_USEFULNESS.columns)))
        connection.execute("CREATE OR REPLACE TABLE core.reason_usefulness AS SELECT * FROM given")
        connection.unregister("given")
    for why, count in of_crm.left.items():
        context.log.warning(f"crm_outcomes: {count:,} rows were left: {why}")
    moved = [row["call_reason"] for row in rows if row["is_moved_down"]]
    return dg.MaterializeResult(
        # the sensor of the lake looks at `moved_down` and asks for a run where it is another
        metadata={
            "dagster/row_count": len(rows),
            "outcomes": len(records),
            "new": kept,
            "new_of_crm": of_crm.new,
            "left_of_crm": dg.MetadataValue.json(of_crm.left),
            "moved_down": moved,
        }
    )


OUTREACH_TABLES = [
    reason_usefulness,
    sql_table(
        "call_reasons",
        schema="mart",
        group="outreach",
        description="Every reason to call an account, with how urgent it is and since when it holds.",
    ),
    sql_table(
        "call_list",
        schema="mart",
        group="outreach",
        description="The accounts to call, by priority, then by ARR at risk and nearness of renewal, and why.",
    ),
    sql_table(
        "renewals",
        schema="mart",
        group="outreach",
        description="What renews within the days ahead, what it is worth, and what speaks against it.",
    ),
    call_snapshots,
    sql_table(
        "call_list_history",
        schema="mart",
        group="outreach",
        description="The call list of every week as it was issued: what people were told, in that order.",
    ),
]
