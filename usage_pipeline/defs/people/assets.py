"""The people behind the use, how subscriptions get going, and how an account stands among accounts like it.

Belongs here: users by account and application, onboarding, peers, expansion. Does not: who a person is (contacts have
a file of their own; here users are counted and never named), nor whom to call (outreach).

All tables are whole tables; a second run replaces them.
"""

from usage_pipeline.defs.tables import sql_table

PEOPLE_TABLES = [
    sql_table(
        "subscription_users",
        schema="mart",
        group="people",
        description="Who comes, by account and application: WAU, MAU, seats, users lost, and on whom it depends.",
    ),
    sql_table(
        "onboarding",
        schema="mart",
        group="people",
        description="How long each new subscription took to first and to steady use, and which of them are stuck.",
    ),
    sql_table(
        "peer_groups",
        schema="core",
        group="people",
        description="Whom each account is compared with: its segment and, where sizes are delivered, its size.",
    ),
    sql_table(
        "peers",
        schema="mart",
        group="people",
        description="Where each account and each of its applications stands among its peers.",
    ),
    sql_table(
        "expansion",
        schema="mart",
        group="people",
        description="What a renewal talk is about: applications that peers have, seats used up, and shelfware.",
    ),
]
