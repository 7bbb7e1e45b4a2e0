-- grain: account x application x full week, with the number of its series from 0, as `series` orders them
SELECT
    account_application_id,
    dense_rank() OVER (ORDER BY account_application_id, period_number) - 1 AS series,
    (week_start - $first) // 7 AS week,
    clicks,
    records_created,
    active_users
FROM core.subscription_weeks
WHERE is_complete AND subscribed_days = 7
ORDER BY account_application_id, week_start
