"""The values that SQL files bind, from the settings: one name means one thing in every file."""

from typing import Any

from usage_pipeline.config.settings import ExpansionSettings, OnboardingSettings, PeerSettings, PeopleSettings, Settings
from usage_pipeline.core.formatting import date_format
from usage_pipeline.core.regular_users import regular_user_values
from usage_pipeline.core.texts import separators
from usage_pipeline.core.weeks import is_ahead


def sql_values(settings: Settings) -> dict[str, Any]:
    """Every value a SQL file may name as `$name`; units as in `settings.py`."""
    completeness, activity, spikes = settings.completeness, settings.activity, settings.anomalies
    usage, subscriptions = settings.sources.usage, settings.sources.subscriptions
    return {
        "date_format": date_format(),
        "separators": separators(),
        "as_of_day": settings.clock.as_of_day,
        "running_week": settings.clock.running_week,
        "window_start": settings.clock.window_start,
        "settle_days": completeness.settle_days,
        "collapse_share": completeness.collapse_share,
        "explosion_share": completeness.explosion_share,
        "rejected_share": completeness.rejected_share,
        "collapse_floor_rows": completeness.collapse_floor_rows,
        "ends_in_next_folder": (
            usage.partitioned
            and usage.partition_timezone is not None
            and is_ahead(usage.partition_timezone, settings.timezone, settings.clock.as_of_day.year)
        ),
        "has_days": usage.delivers("event_time"),
        "has_users": usage.delivers("user_id"),
        "has_records": usage.delivers("records_created"),
        # a notice, or a cancellation of a day to come
        "has_notices": subscriptions is not None
        and (subscriptions.delivers("notice_date") or subscriptions.delivers("end_reason")),
        "has_ends": subscriptions is not None and subscriptions.delivers("end_date"),
        "has_contacts": settings.sources.contacts is not None,
        "renewal_gap_days": activity.renewal_gap_days,
        "new_weeks": activity.new_weeks,
        "inactive_weeks": activity.inactive_weeks,
        "recent_weeks": activity.recent_weeks,
        # how far the windows reach back from a week: the recent weeks end with it, the usual ones before those
        "recent_frame": activity.recent_weeks - 1,
        "usual_frame": activity.recent_weeks + activity.usual_weeks - 1,
        "low_share": activity.low_share,
        "low_floor_clicks": activity.low_floor_clicks,
        "rank_floor_clicks": activity.rank_floor_clicks,
        "listed_weeks": spikes.listed_weeks,
        "step_weeks": spikes.shift_weeks,
        "anomaly_relative_floor": spikes.relative_floor,
        "low_weeks": settings.risk.low_weeks,
        "lead_weeks": settings.risk.lead_weeks,
        "churn_days": settings.risk.churn_days,
        "rule_lift": settings.risk.rule_lift,
        "rule_events": settings.risk.rule_events,
        "renewal_days": settings.calls.renewal_days,
        "urgent_renewal_days": settings.calls.urgent_renewal_days,
        "renewal_horizon_days": settings.calls.renewal_horizon_days,
        "recent_call_weeks": settings.calls.recent_weeks,
        "health_factors": [{"factor": name, **factor} for name, factor in settings.health.factors.model_dump().items()],
        "health_green": settings.health.green_from,
        "health_amber": settings.health.amber_from,
        "health_notice_score": settings.health.notice_score,
        "health_known_share": settings.health.known_share,
        "health_quarters": settings.health.backtest_quarters,
        "health_ratio": settings.health.signal_ratio,
        "health_events": settings.health.signal_events,
        "change_relative_floor": settings.changes.relative_floor,
        "change_absolute_floor": settings.changes.absolute_floor_clicks,
        **regular_user_values(),
        **_people_values(settings.people),
        **_customer_values(settings.onboarding, settings.peers, settings.expansion),
    }


def _people_values(people: PeopleSettings) -> dict[str, Any]:
    return {
        "dependence_weeks": people.dependence_weeks,
        "dependence_share": people.dependence_share,
        "dependence_floor_clicks": people.dependence_floor_clicks,
        "dependence_floor_weeks": people.dependence_floor_weeks,
        "champion_silent_weeks": people.champion_silent_weeks,
        "champion_steady_weeks": people.champion_steady_weeks,
        "champion_share": people.champion_share,
        # the oldest week, counted from the newest, in which the main user is looked for
        "champion_reach_weeks": people.champion_silent_weeks + people.champion_weeks - 1,
    }


def _customer_values(
    onboarding: OnboardingSettings, peers: PeerSettings, expansion: ExpansionSettings
) -> dict[str, Any]:
    return {
        "steady_weeks": onboarding.steady_weeks,
        "steady_frame": onboarding.steady_of_weeks - 1,
        "stuck_weeks": onboarding.stuck_weeks,
        "peers_minimum": peers.minimum,
        "size_bands": peers.size_bands,
        "gap_share": expansion.gap_share,
        "used_up_share": expansion.used_up_share,
        "shelfware_share": expansion.shelfware_share,
        "shelfware_floor_seats": expansion.shelfware_floor_seats,
    }
