-- grain: account x application x user x day of one week's files, by the reason why its rows are kept aside, if any
SELECT
    account_id,
    application,
    user_id,
    day,
    reason,
    is_duplicate,
    count(*) AS source_rows,
    count(*) FILTER (WHERE has_unreadable_user) AS unreadable_users,
    count(*) FILTER (WHERE has_unreadable_event) AS unreadable_events,
    sum(clicks) AS clicks,
    sum(records_created) AS records_created
FROM usage_rows
GROUP BY account_id, application, user_id, day, reason, is_duplicate
