"""Activity that knows subscriptions: subscription periods, the gap-free subscription weeks, usage states, and the marts
on them.

Outside the subscription there is no row, inside it without events there is a 0, and a week that never arrived is NULL.
All tables are whole tables; a second run replaces them.
"""

from typing import Any

import dagster as dg

from usage_pipeline.activity import account_application_numbers as numbers
from usage_pipeline.activity import usage_states as rules
from usage_pipeline.config.settings import Settings
from usage_pipeline.defs.lineage import Step, column_lineage, deps_of
from usage_pipeline.defs.tables import OWNERS, POOL, code_of, count_rows, keep_or_make, sql_table
from usage_pipeline.publishing.history import history_locked
from usage_pipeline.resources import Warehouse


@dg.asset(
    key="account_applications",
    group_name="activity",
    kinds={"duckdb", "sql"},
    owners=OWNERS,
    deps=deps_of(
        "account_applications",
        Step(
            tables={"core.account_applications": "activity/account_applications"},
            passing={"kept_numbers": numbers.COLUMNS.names},
        ),
    ),
    pool=POOL,
    code_version=code_of("activity", "defs/activity"),
)
def account_applications(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """A number for each account and application, kept for good: large tables carry it instead of both.

    One row: account x application that was ever subscribed.
    """
    with history_locked(settings.home, settings.ingest.wait_seconds), warehouse.get_connection() as connection:
        given = numbers.replace_account_applications(connection, settings.home.history_dir)
        rows = count_rows(connection, "core.account_applications")
    metadata = {"dagster/row_count": rows, "new_numbers": given, **column_lineage("account_applications")}
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    key="usage_states",
    group_name="activity",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=deps_of("usage_states", Step(python={"core.usage_states": rules.COLUMNS}, runs=["activity/weeks_to_judge"])),
    pool=POOL,
    code_version=code_of("activity", "defs/activity"),
)
def usage_states(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """Never adopted, new, active, low or inactive, week by week, only in full weeks of subscription.

    One row: account x application x complete week of seven subscribed days.
    """
    with warehouse.get_connection() as connection:
        keep_or_make(
            context,
            connection,
            settings,
            lambda: rules.replace_usage_states(connection, settings.activity),
            {"activity": settings.activity.model_dump()},
        )
        counts = dict(connection.execute("SELECT usage_state, count(*) FROM core.usage_states GROUP BY 1").fetchall())
    metadata: dict[str, Any] = {"dagster/row_count": sum(counts.values()), "states": dg.MetadataValue.json(counts)}
    return dg.MaterializeResult(metadata=metadata)


ACTIVITY_TABLES = [
    sql_table(
        "subscription_periods",
        schema="core",
        group="activity",
        description="When each account was subscribed for each application.",
        folder="activity",
    ),
    sql_table(
        "subscription_terms",
        schema="core",
        group="activity",
        description="Value and seats of each subscription, and the days on which they held: a renewal changes nothing "
        "before it.",
    ),
    account_applications,
    sql_table(
        "subscription_states",
        schema="core",
        group="activity",
        description="Each subscription with its state on the day of as_of, its value and its seats: what a notice is, "
        "and that a cancellation ahead is one, is said here alone.",
    ),
    sql_table(
        "account_subscriptions",
        schema="core",
        group="activity",
        description="The subscription of each account as a whole: losing an account is not losing one application.",
    ),
    sql_table(
        "subscription_weeks",
        schema="core",
        group="activity",
        description="Usage in every subscribed week, with zero where nobody came: states and anomalies follow from it.",
    ),
    usage_states,
    sql_table(
        "account_application_states",
        schema="core",
        group="activity",
        description="Subscription and usage state on the day of as_of: an ended subscription has no usage state.",
        checks=["defs/activity/use_outside_subscriptions"],
    ),
    sql_table(
        "usage_trends",
        schema="core",
        group="activity",
        description="The last 13 complete weeks of each account and each of its applications, as small bars.",
    ),
    sql_table(
        "subscription_overview",
        schema="mart",
        group="activity",
        description="What each account owns, how it uses it, since when, and why we say so, in words.",
    ),
    sql_table(
        "growth_events",
        schema="core",
        group="activity",
        description="Who came, stayed, came back and was lost, and why, week by week and month by month.",
        checks=["defs/activity/growth_identities"],
    ),
    sql_table(
        "growth",
        schema="mart",
        group="activity",
        description="Growth accounting of applications of accounts, accounts and users, with names.",
    ),
    sql_table(
        "retention",
        schema="mart",
        group="activity",
        description="Whether subscriptions are used in each month after their start, by the quarter they began in.",
    ),
    sql_table(
        "ended_subscriptions",
        schema="mart",
        group="activity",
        description="What has ended, kept apart from what is neglected.",
    ),
    sql_table(
        "subscription_history",
        schema="mart",
        group="activity",
        description="Every subscription of every account, ended ones too, in order.",
    ),
    sql_table(
        "accounts_summary",
        schema="mart",
        group="activity",
        description="Each account on one line: applications by state, users, value, renewal.",
    ),
]
