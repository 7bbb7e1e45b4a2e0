"""Revenue: annual recurring revenue by month, what moved it, and how much of it is kept.

Amounts are those of `core.subscription_terms`, in the currency of the configuration and exact to the cent until they
are published. Whether an account is new, has churned or is back is decided for the account as a whole; amounts are told
for each application. All tables are whole tables; a second run replaces them. The rules: docs/explanation/revenue.md.
"""

from usage_pipeline.defs.tables import sql_table

REVENUE_TABLES = [
    sql_table(
        "revenue_periods",
        schema="core",
        group="revenue",
        description="When each account had ARR: it churns where such a run of days ends, and returns with the next.",
    ),
    sql_table(
        "monthly_arr",
        schema="core",
        group="revenue",
        description="ARR of each account and application on the last day of each month that has ended.",
    ),
    sql_table(
        "arr_movements",
        schema="core",
        group="revenue",
        description="By how much ARR changed from month to month, and why.",
        checks=["defs/revenue/arr_identities"],
    ),
    sql_table(
        "arr_retention",
        schema="core",
        group="revenue",
        description="What became in twelve months of the ARR of each account and application.",
    ),
    sql_table(
        "revenue_movements",
        schema="mart",
        group="revenue",
        description="ARR by month: new, reactivated, expansion, contraction and churned, with names.",
    ),
    sql_table(
        "revenue_retention",
        schema="mart",
        group="revenue",
        description="Gross and net revenue retention over twelve months, with what they are made of and names.",
    ),
]
