-- grain: account x application x subscribed week that says something of use: complete, or used
SELECT
    account_application_id,
    week_start - DATE '1970-01-01' AS week,
    period_number,
    subscribed_days = 7 AND is_complete AS is_full,
    subscription_state = 'notice received' AS has_notice,
    is_used,
    clicks
FROM core.subscription_weeks
WHERE is_complete OR is_used
