-- grain: account x application x user x day within one week folder, from parts that were summed up on their own
SELECT
    week,
    week_start,
    account_id,
    application,
    user_id,
    day,
    CAST(sum(source_rows) AS BIGINT) AS source_rows,
    CAST(sum(clicks) AS BIGINT) AS clicks,
    CAST(sum(records_created) AS BIGINT) AS records_created
FROM parts
GROUP BY week, week_start, account_id, application, user_id, day
