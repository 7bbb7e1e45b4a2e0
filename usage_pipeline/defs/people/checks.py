"""Checks on people, onboarding, peers and expansion: nothing is compared with too few, and nothing sold is offered."""

import dagster as dg

from usage_pipeline.defs.tables import no_rows, schema_check
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="expansion", name="no_gap_is_an_application_that_the_account_has", blocking=True)
def no_gap_is_an_application_that_the_account_has(warehouse: Warehouse) -> dg.AssetCheckResult:
    """An expansion gap is neither subscribed nor sold and about to begin."""
    return no_rows(
        warehouse,
        "SELECT gaps.account_id, gaps.application_key, states.subscription_state "
        "FROM mart.expansion AS gaps INNER JOIN core.account_application_states AS states "
        "ON gaps.account_id = states.account_id AND gaps.application_key = states.application "
        "WHERE gaps.expansion_kind = 'expansion gap' "
        "AND states.subscription_state IN ('active subscription', 'notice received', 'not started') LIMIT 20",
    )


@dg.asset_check(asset="peers", name="every_missing_percentile_says_why", blocking=True)
def every_missing_percentile_says_why(warehouse: Warehouse) -> dg.AssetCheckResult:
    """A percentile stands between 0 and 1, or a reason stands in its place."""
    return no_rows(
        warehouse,
        "SELECT account_id, application_key, peer_measure, percentile, why_no_percentile FROM mart.peers "
        "WHERE (percentile IS NULL) = (why_no_percentile = '') OR percentile NOT BETWEEN 0 AND 1 LIMIT 20",
    )


PEOPLE_CHECKS = [
    no_gap_is_an_application_that_the_account_has,
    every_missing_percentile_says_why,
    *(schema_check(name) for name in ("subscription_users", "onboarding", "peers", "expansion")),
]
