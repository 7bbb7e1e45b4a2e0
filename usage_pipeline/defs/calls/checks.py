"""Checks on the call list: nobody is called about what has ended."""

import dagster as dg

from usage_pipeline.defs.tables import contract_check, no_rows
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="call_list", name="nobody_is_called_about_what_has_ended", blocking=True)
def nobody_is_called_about_what_has_ended(warehouse: Warehouse) -> dg.AssetCheckResult:
    """A cancelled application is no neglected one: every reason is about a contract that runs."""
    return no_rows(
        warehouse,
        "SELECT reasons.account_id, reasons.application_key, reasons.call_reason, states.contract_state "
        "FROM mart.call_reasons AS reasons INNER JOIN core.pair_states AS states "
        "ON reasons.account_id = states.account_id AND reasons.application_key = states.application "
        "WHERE states.contract_state NOT IN ('in contract', 'notice given') LIMIT 20",
    )


CALL_CHECKS = [nobody_is_called_about_what_has_ended, contract_check("call_reasons"), contract_check("call_list")]
