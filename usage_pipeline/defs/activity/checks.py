"""Checks on activity: a cancelled application never looks like a neglected one."""

import dagster as dg
import duckdb

from usage_pipeline.core.sql import load_sql
from usage_pipeline.defs.tables import no_rows, schema_check, warning
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="subscription_overview", name="nothing_that_ended_is_called_low_or_inactive", blocking=True)
def nothing_that_ended_is_called_low(warehouse: Warehouse) -> dg.AssetCheckResult:
    """An application outside its subscription has no usage state at all."""
    return no_rows(
        warehouse,
        "SELECT account_id, application_key, subscription_state, usage_state FROM mart.subscription_overview "
        "WHERE subscription_state NOT IN ('active subscription', 'notice received') AND usage_state IS NOT NULL "
        "LIMIT 20",
    )


@dg.asset_check(asset="account_application_states", name="little_use_outside_subscriptions")
def little_use_outside_subscriptions(warehouse: Warehouse) -> dg.AssetCheckResult:
    """At most 10 % of the usage rows are of days outside every subscription of their account; else some are missing.

    Accounts of which no subscription is known at all are left out: their subscriptions are inferred, and said to be.
    """
    with warehouse.read() as connection:
        found = connection.execute(load_sql("defs/activity", "use_outside_subscriptions")).fetchone()
    rows, outside, accounts = found or (0, 0, 0)
    if not rows:
        return warning(True, {}, "not compared: no subscription or no day of use is known")
    share = float(outside / rows)
    words = (
        f"{share:.1%} of the usage rows lie on days outside every subscription of their account, in {accounts} "
        "accounts; they are counted, and make nobody active"
    )
    metadata = {"share_outside_subscriptions": share, "rows_outside": int(outside or 0), "accounts": int(accounts or 0)}
    return warning(share <= 0.1, metadata, words)


@dg.asset_check(asset="growth_events", name="growth_adds_up", blocking=True)
def growth_adds_up(warehouse: Warehouse) -> dg.AssetCheckResult:
    """In every period used = new + kept + reactivated, and used the period before = kept + all that was lost."""
    with warehouse.read() as connection:
        wrong = broken_identities(connection)
    return dg.AssetCheckResult(passed=not wrong, metadata={"wrong": dg.MetadataValue.json(wrong[:20])})


def broken_identities(connection: duckdb.DuckDBPyConnection) -> list[list[str]]:
    """Periods in which what was counted apart from the changes does not equal their sum."""
    rows = connection.execute(load_sql("defs/activity", "growth_identities")).fetchall()
    return [[str(value) for value in row] for row in rows]


ACTIVITY_CHECKS = [
    growth_adds_up,
    little_use_outside_subscriptions,
    nothing_that_ended_is_called_low,
    *(
        schema_check(name)
        for name in (
            *("subscription_overview", "ended_subscriptions", "subscription_history", "accounts_summary"),
            *("growth", "retention"),
        )
    ),
]
