"""The call list: whom to call first on a Monday, and why; pages, mail and files show the same rows.

Belongs here: bringing together what the other steps found. Does not: finding them (anomalies, states, risks).
"""

from usage_pipeline.defs.tables import sql_table

OUTREACH_TABLES = [
    sql_table(
        "call_reasons",
        schema="mart",
        group="outreach",
        description="Every reason to call an account, with how urgent it is and since when it holds.",
    ),
    sql_table(
        "call_list",
        schema="mart",
        group="outreach",
        description="The accounts to call, most urgent and most valuable first, with their reasons in words.",
    ),
]
