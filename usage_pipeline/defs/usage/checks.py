"""Checks on usage: published tables keep their contract, and no click is lost between facts and pages."""

import dagster as dg

from usage_pipeline.config import Settings
from usage_pipeline.defs.tables import contract_check
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="usage_by_week", name="no_click_is_lost_on_the_way_to_the_pages", blocking=True)
def no_click_is_lost(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Clicks in the facts = clicks in the warehouse = clicks in the mart."""
    facts = f"{settings.facts_dir}/week=*/facts.parquet"
    with warehouse.read() as connection:
        # facts of weeks that left the window stay in the warehouse as well: all three hold the same weeks
        found = connection.execute(
            "SELECT (SELECT sum(clicks) FROM read_parquet($facts)), (SELECT sum(clicks) FROM core.weekly_usage), "
            "(SELECT sum(clicks) FROM mart.usage_by_week)",
            {"facts": facts},
        ).fetchone()
    assert found is not None
    in_facts, in_core, in_mart = (int(value or 0) for value in found)
    metadata = {"facts": in_facts, "weekly_usage": in_core, "usage_by_week": in_mart}
    return dg.AssetCheckResult(passed=in_facts == in_core == in_mart, metadata=metadata)


USAGE_CHECKS = [
    no_click_is_lost,
    *(contract_check(name) for name in ("usage_by_week", "user_weeks", "usage_by_period", "usage_changes")),
]
