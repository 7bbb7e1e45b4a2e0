"""Activity that knows subscriptions: subscription periods, the gap-free subscription weeks, usage states, and the marts
on them.

Outside the subscription there is no row, inside it without events there is a 0, and a week that never arrived is NULL.
All tables are whole tables; a second run replaces them.
"""

from inspect import getsource
from typing import Any

import dagster as dg

from usage_pipeline.activity import usage_states as rules
from usage_pipeline.config.settings import Settings
from usage_pipeline.defs.tables import OWNERS, POOL, code_version, sql_table
from usage_pipeline.defs.usage.assets import NAMES
from usage_pipeline.resources import Warehouse


@dg.asset(
    key="usage_states",
    group_name="activity",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=["subscription_weeks"],
    pool=POOL,
    code_version=code_version(getsource(rules)),
)
def usage_states(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """Never adopted, new, active, low or inactive, week by week, only in full weeks of subscription.

    One row: account x application x complete week of seven subscribed days.
    """
    with warehouse.get_connection() as connection:
        rules.replace_usage_states(connection, settings.activity)
        counts = dict(connection.execute("SELECT usage_state, count(*) FROM core.usage_states GROUP BY 1").fetchall())
    metadata: dict[str, Any] = {"dagster/row_count": sum(counts.values()), "states": dg.MetadataValue.json(counts)}
    return dg.MaterializeResult(metadata=metadata)


ACTIVITY_TABLES = [
    sql_table(
        "subscription_periods",
        schema="core",
        group="activity",
        deps=["subscriptions", "weekly_usage"],
        description="When each account was subscribed for each application.",
        folder="activity",
    ),
    sql_table(
        "account_applications",
        schema="core",
        group="activity",
        deps=["subscription_periods"],
        description="A number for each account and application: large tables carry it instead of both.",
    ),
    sql_table(
        "account_subscriptions",
        schema="core",
        group="activity",
        deps=["subscriptions", "subscription_periods", "account_names"],
        description="The subscription of each account as a whole: losing an account is not losing one application.",
    ),
    sql_table(
        "subscription_weeks",
        schema="core",
        group="activity",
        deps=["subscription_periods", "account_applications", "weekly_usage", "weeks"],
        description="Usage in every subscribed week, with zero where nobody came: states and anomalies follow from it.",
    ),
    usage_states,
    sql_table(
        "account_application_states",
        schema="core",
        group="activity",
        deps=["subscription_periods", "subscription_weeks", "usage_states", "weekly_usage", "weeks"],
        description="Subscription and usage state on the day of as_of: an ended subscription has no usage state.",
    ),
    sql_table(
        "subscription_overview",
        schema="mart",
        group="activity",
        deps=["account_application_states", "weeks", *NAMES],
        description="What each account owns, how it uses it, since when, and why we say so, in words.",
    ),
    sql_table(
        "growth_events",
        schema="core",
        group="activity",
        deps=["subscription_periods", "account_applications", "subscription_weeks", "weekly_usage", "weeks", "months"],
        description="Who came, stayed, came back and was lost, and why, week by week and month by month.",
    ),
    sql_table(
        "growth",
        schema="mart",
        group="activity",
        deps=["growth_events", *NAMES],
        description="Growth accounting of applications of accounts, accounts and users, with names.",
    ),
    sql_table(
        "retention",
        schema="mart",
        group="activity",
        deps=["subscription_periods", "weekly_usage", "months", *NAMES],
        description="Whether subscriptions are used in each month after their start, by the quarter they began in.",
    ),
    sql_table(
        "ended_subscriptions",
        schema="mart",
        group="activity",
        deps=["account_application_states", "account_subscriptions", *NAMES],
        description="What has ended, kept apart from what is neglected.",
    ),
    sql_table(
        "subscription_history",
        schema="mart",
        group="activity",
        deps=["subscription_periods", "subscriptions", *NAMES],
        description="Every subscription of every account, ended ones too, in order.",
    ),
    sql_table(
        "accounts_summary",
        schema="mart",
        group="activity",
        deps=["account_application_states", "account_subscriptions", "weekly_usage", "weeks", *NAMES],
        description="Each account on one line: applications by state, users, value, renewal.",
    ),
]
