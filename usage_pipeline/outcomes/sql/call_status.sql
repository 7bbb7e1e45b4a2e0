-- grain: an account on the call list of the build that is shown, with what became of it
SELECT
    calls.rank,
    calls.urgency,
    calls.urgency_rank,
    calls.account_id,
    calls.account,
    calls.segment,
    calls.region,
    calls.owner,
    calls.reason,
    calls.news,
    calls.new_reasons,
    calls.applications_at_risk,
    calls.applications_owned,
    calls.arr_at_risk,
    calls.annual_value,
    calls.renewal_date,
    calls.days_to_renewal,
    calls.last_used_on,
    calls.health,
    calls.health_color,
    calls.health_change,
    calls.call_reason,
    calls.reason_in_short,
    calls.usage_trend,
    given.call_status,
    given.call_status_text,
    given.outcome_at,
    given.was_reached
FROM shown.mart.call_list AS calls
INNER JOIN given ON calls.account_id = given.account_id
ORDER BY calls.rank
