"""Checks on activity: a cancelled application never looks like a neglected one."""

import dagster as dg

from usage_pipeline.defs.tables import contract_check
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="account_applications", name="nothing_that_ended_is_called_low_or_inactive", blocking=True)
def nothing_that_ended_is_called_low(warehouse: Warehouse) -> dg.AssetCheckResult:
    """An application outside its contract has no usage state at all."""
    with warehouse.read() as connection:
        rows = connection.execute(
            "SELECT account_id, application_key, contract_state, usage_state FROM mart.account_applications "
            "WHERE contract_state NOT IN ('in contract', 'notice given') AND usage_state IS NOT NULL LIMIT 20"
        ).fetchall()
    return dg.AssetCheckResult(passed=not rows, metadata={"rows": dg.MetadataValue.json([list(r) for r in rows])})


ACTIVITY_CHECKS = [
    nothing_that_ended_is_called_low,
    *(contract_check(name) for name in ("account_applications", "ended_contracts", "accounts_summary")),
]
