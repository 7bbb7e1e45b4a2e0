"""Checks on revenue: what moved ARR adds up to its change, to the cent."""

import dagster as dg
import duckdb

from usage_pipeline.core.sql import load_sql
from usage_pipeline.defs.tables import no_rows, schema_check
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="arr_movements", name="arr_movements_add_up", blocking=True)
def arr_movements_add_up(warehouse: Warehouse) -> dg.AssetCheckResult:
    """In every month the movements of each account and application add up to the change of its ARR, to the cent."""
    with warehouse.read() as connection:
        wrong = broken_identities(connection)
    return dg.AssetCheckResult(passed=not wrong, metadata={"wrong": dg.MetadataValue.json(wrong[:20])})


def broken_identities(connection: duckdb.DuckDBPyConnection) -> list[list[str]]:
    """Accounts, applications and months whose movements are not the change of the ARR that subscriptions say."""
    rows = connection.execute(load_sql("defs/revenue", "arr_identities")).fetchall()
    return [[str(value) for value in row] for row in rows]


@dg.asset_check(asset="arr_retention", name="retained_arr_adds_up", blocking=True)
def retained_arr_adds_up(warehouse: Warehouse) -> dg.AssetCheckResult:
    """ARR 12 months before, less contraction and churned, with expansion, reactivated and joined, is that of now."""
    return no_rows(
        warehouse,
        "SELECT month_start, account_id, application FROM core.arr_retention "
        "WHERE starting_arr - contraction - churned + expansion + reactivated + joined != arr LIMIT 20",
    )


REVENUE_CHECKS = [
    arr_movements_add_up,
    retained_arr_adds_up,
    schema_check("revenue_movements"),
    schema_check("revenue_retention"),
]
