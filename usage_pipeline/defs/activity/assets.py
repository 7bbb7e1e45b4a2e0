"""Activity that knows contracts: spells, the gap-free grid, usage states, and the marts on them.

Outside the contract there is no row, inside it without events there is a 0, and a week that never arrived is NULL.
All tables are whole tables; a second run replaces them.
"""

from usage_pipeline.defs.tables import sql_table
from usage_pipeline.defs.usage.assets import NAMES

ACTIVITY_TABLES = [
    sql_table(
        "contract_spells",
        schema="core",
        group="activity",
        deps=["subscriptions", "weekly_usage"],
        description="When each account was in contract for each application.",
    ),
    sql_table(
        "account_contracts",
        schema="core",
        group="activity",
        deps=["subscriptions", "contract_spells", "account_names"],
        description="The contract of each account as a whole: losing an account is not losing one application.",
    ),
    sql_table(
        "usage_grid",
        schema="core",
        group="activity",
        deps=["contract_spells", "weekly_usage", "weeks"],
        description="Usage in every week in contract, with zero where nobody came: what states and flags judge by.",
    ),
    sql_table(
        "usage_states",
        schema="core",
        group="activity",
        deps=["usage_grid"],
        description="Never used, new, active, low or inactive, week by week, only in full weeks of contract.",
    ),
    sql_table(
        "pair_states",
        schema="core",
        group="activity",
        deps=["contract_spells", "usage_grid", "usage_states", "weekly_usage", "weeks"],
        description="Contract and usage state on the day of as_of: an ended contract has no usage state.",
    ),
    sql_table(
        "account_applications",
        schema="mart",
        group="activity",
        deps=["pair_states", "weeks", *NAMES],
        description="What each account owns, how it uses it, since when, and why we say so, in words.",
    ),
    sql_table(
        "growth_events",
        schema="core",
        group="activity",
        deps=["contract_spells", "usage_grid", "weekly_usage", "weeks", "months"],
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
        deps=["contract_spells", "weekly_usage", "months", *NAMES],
        description="Whether contracts are used in each month after their start, by the quarter they began in.",
    ),
    sql_table(
        "ended_contracts",
        schema="mart",
        group="activity",
        deps=["pair_states", "account_contracts", *NAMES],
        description="What has ended, kept apart from what is neglected.",
    ),
    sql_table(
        "accounts_summary",
        schema="mart",
        group="activity",
        deps=["pair_states", "account_contracts", "weekly_usage", "weeks", *NAMES],
        description="Each account on one line: applications by state, users, value, renewal.",
    ),
]
