-- grain: account x application x user x day within one week folder; the day is NULL where only week folders come
SELECT
    CAST($week AS DATE) AS week,
    coalesce(CAST(date_trunc('week', day) AS DATE), CAST($week AS DATE)) AS week_start,
    account_id,
    application,
    user_id,
    day,
    CAST(source_rows AS BIGINT) AS source_rows,
    CAST(clicks AS BIGINT) AS clicks,
    CAST(records_created AS BIGINT) AS records_created
FROM counted
WHERE reason IS NULL AND NOT is_duplicate
