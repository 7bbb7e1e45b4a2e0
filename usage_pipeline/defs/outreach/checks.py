"""Checks on the call list: nobody is called about what has ended."""

import dagster as dg

from usage_pipeline.defs.tables import no_rows, schema_check
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="call_list", name="nobody_is_called_about_what_has_ended", blocking=True)
def nobody_is_called_about_what_has_ended(warehouse: Warehouse) -> dg.AssetCheckResult:
    """A cancelled application is no neglected one: every reason is about a subscription that runs."""
    return no_rows(
        warehouse,
        "SELECT reasons.account_id, reasons.application_key, reasons.call_reason, states.subscription_state "
        "FROM mart.call_reasons AS reasons INNER JOIN core.account_application_states AS states "
        "ON reasons.account_id = states.account_id AND reasons.application_key = states.application "
        "WHERE states.subscription_state NOT IN ('active subscription', 'notice received') LIMIT 20",
    )


OUTREACH_CHECKS = [
    nobody_is_called_about_what_has_ended,
    schema_check("call_reasons"),
    schema_check("call_list"),
    schema_check("renewals"),
    schema_check("call_list_history"),
]
