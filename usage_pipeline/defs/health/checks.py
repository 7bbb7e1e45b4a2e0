"""Checks on health: it adds up, and stays between 0 and 100."""

import dagster as dg

from usage_pipeline.defs.tables import no_rows, schema_check
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="account_health", name="health_is_the_sum_of_its_points", blocking=True)
def health_is_the_sum_of_its_points(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Whoever adds up the factors that a page shows gets the health that it shows, with what a notice takes away."""
    return no_rows(
        warehouse,
        "SELECT account_id, application_key, health, sum(points) AS points FROM mart.account_health "
        "INNER JOIN mart.health_factor_points USING (account_id, application_key) "
        "GROUP BY account_id, application_key, health "
        "HAVING abs(health - sum(points)) > 0.5 + 1e-6 OR health NOT BETWEEN 0 AND 100 LIMIT 20",
    )


HEALTH_CHECKS = [
    health_is_the_sum_of_its_points,
    schema_check("health_factor_points"),
    schema_check("account_health"),
    schema_check("health_backtest"),
]
