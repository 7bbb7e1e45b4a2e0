"""Checks on predictions: no score for what has ended, and no list that says nothing of why."""

import dagster as dg

from usage_pipeline.defs.tables import contract_check, no_rows, warning
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="risk_scores", name="nothing_that_ended_is_scored", blocking=True)
def nothing_that_ended_is_scored(warehouse: Warehouse) -> dg.AssetCheckResult:
    """A pair that has ended, or whose end is announced, has no chance of ending."""
    return no_rows(
        warehouse,
        "SELECT scores.target, scores.account_id, scores.application, states.contract_state "
        "FROM core.risk_scores AS scores INNER JOIN core.pair_states AS states "
        "ON scores.account_id = states.account_id AND scores.application = states.application "
        "WHERE states.contract_state != 'in contract' LIMIT 20",
    )


@dg.asset_check(asset="usage_risks", name="risks_come_with_reasons")
def risks_come_with_reasons(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Of ten listed risks nine say why, or the words no longer follow the features."""
    with warehouse.read() as connection:
        found = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE reason = '') FROM mart.usage_risks"
        ).fetchone()
    rows, silent = found or (0, 0)
    return warning(silent <= 0.1 * rows, {"rows": rows, "without_reason": silent}, f"{silent} of {rows} say no reason")


PREDICTION_CHECKS = [
    nothing_that_ended_is_scored,
    risks_come_with_reasons,
    contract_check("usage_risks"),
    contract_check("risk_methods"),
    contract_check("risk_backtest"),
    contract_check("risk_tenths"),
    contract_check("said_and_happened"),
]
