-- grain: account x application x week in which somebody came, over all users
SELECT
    week_start,
    account_id,
    application,
    CAST(sum(clicks) AS BIGINT) AS clicks,
    CAST(sum(records_created) AS BIGINT) AS records_created,
    CASE WHEN $has_users THEN count(user_id) END AS active_users,
    CAST(sum(source_rows) AS BIGINT) AS source_rows,
    min(first_day) AS first_day,
    max(last_day) AS last_day
FROM core.weekly_users
WHERE week_start BETWEEN $first_week AND $last_week
GROUP BY week_start, account_id, application
