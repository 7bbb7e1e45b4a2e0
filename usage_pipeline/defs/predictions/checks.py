"""Checks on predictions: no score for what has ended, and no list that says nothing of why."""

import dagster as dg

from usage_pipeline.defs.tables import no_rows, schema_check, warning
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="risk_scores", name="nothing_that_ended_is_scored", blocking=True)
def nothing_that_ended_is_scored(warehouse: Warehouse) -> dg.AssetCheckResult:
    """An account x application that has ended, or whose end is announced, has no probability of ending."""
    return no_rows(
        warehouse,
        "SELECT scores.target, scores.account_id, scores.application, states.subscription_state "
        "FROM core.risk_scores AS scores INNER JOIN core.account_application_states AS states "
        "ON scores.account_id = states.account_id AND scores.application = states.application "
        "WHERE states.subscription_state != 'active subscription' LIMIT 20",
    )


@dg.asset_check(asset="usage_risks", name="risks_come_with_drivers")
def risks_come_with_drivers(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Of ten listed risks nine say why, or the words no longer follow the features."""
    with warehouse.read() as connection:
        found = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE driver = '') FROM mart.usage_risks"
        ).fetchone()
    rows, silent = found or (0, 0)
    return warning(silent <= 0.1 * rows, {"rows": rows, "without_driver": silent}, f"{silent} of {rows} name no driver")


PREDICTION_CHECKS = [
    nothing_that_ended_is_scored,
    risks_come_with_drivers,
    schema_check("usage_risks"),
    schema_check("risk_methods"),
    schema_check("risk_backtest"),
    schema_check("calibration_deciles"),
    schema_check("predictions_vs_outcomes"),
]
