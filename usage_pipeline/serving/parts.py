"""The parts that an answer about one account has, by name.

Belongs here: which table is behind a part, and the order of its rows. Does not: reading them (`reads.py`).
"""

# part of an account: its table, and the order of its rows
ACCOUNT_PARTS = {
    "summary": ("accounts_summary", "account_id"),
    "call": ("call_list", "rank"),
    "call_reasons": ("call_reasons", "urgency_rank, application, call_reason"),
    "health": ("account_health", "application_key <> 'all', application_key"),
    "health_factors": (
        "health_factor_points",
        "application_key <> 'all', application_key, points_missing DESC, factor",
    ),
    "subscriptions": ("subscription_overview", "application_key"),
    "subscription_history": ("subscription_history", "application_key, period_number"),
    "usage": ("usage_by_week", "week_start DESC, application_key"),
    "users": ("subscription_users", "application_key"),
    "onboarding": ("onboarding", "application_key, period_number"),
    "peers": ("peers", "application_key, peer_measure"),
    "expansion": ("expansion", "application_key, expansion_kind"),
    "anomalies": ("anomaly_weeks", "week_start DESC, application_key, measure"),
    "risks": ("usage_risks", "target, application_key"),
    "renewals": ("renewals", "renewal_date"),
    "revenue": ("revenue_movements", "month_start DESC, application_key, arr_movement"),
    "calls_before": ("call_list_history", "as_of_week DESC"),
    "outcomes": ("account_outcomes", "recorded_at DESC, outcome_id"),
}
# parts of an explanation, each a part of the account
EXPLAIN_PARTS = (
    "usage",
    "anomalies",
    "subscriptions",
    "subscription_history",
    "call_reasons",
    "health",
    "health_factors",
    "risks",
)
