-- grain: a month (or week) as a subscription neither used nor subscribed has it: what is NULL here is known of none
SELECT
    nth,
    0 AS account_no,
    0 AS clicks,
    CASE WHEN $has_records THEN 0 END AS records_created,
    CASE WHEN $has_users THEN 0 END AS active_users,
    FALSE AS is_whole_account,
    FALSE AS is_subscribed,
    CAST(NULL AS BIGINT) AS seats,
    CAST(NULL AS DOUBLE) AS annual_value,
    CAST(NULL AS BIGINT) AS seats_taken,
    CASE WHEN state_week IS NOT NULL THEN 'none' END AS usage_state,
    CASE WHEN is_risk_known THEN FALSE END AS is_at_risk,
    CASE WHEN is_growth_known THEN 'none' END AS change
FROM kpi_steps
WHERE calendar = $calendar
