-- a row: account x application x user x week of the days, within one week folder; NULL on a day without any row
WITH kept AS (
    SELECT
        *,
        coalesce(CAST(date_trunc('week', day) AS DATE), week) AS week_start,
        isodow(day) AS weekday
    FROM usage_rows
    WHERE reason IS NULL AND NOT is_duplicate
)

SELECT
    week,
    week_start,
    account_id,
    application,
    user_id,
    CAST(count(*) AS BIGINT) AS source_rows,
    CAST(sum(clicks) AS BIGINT) AS clicks,
    CAST(sum(records_created) AS BIGINT) AS records_created,
    CAST(sum(clicks) FILTER (WHERE weekday = 1) AS BIGINT) AS clicks_mon,
    CAST(sum(clicks) FILTER (WHERE weekday = 2) AS BIGINT) AS clicks_tue,
    CAST(sum(clicks) FILTER (WHERE weekday = 3) AS BIGINT) AS clicks_wed,
    CAST(sum(clicks) FILTER (WHERE weekday = 4) AS BIGINT) AS clicks_thu,
    CAST(sum(clicks) FILTER (WHERE weekday = 5) AS BIGINT) AS clicks_fri,
    CAST(sum(clicks) FILTER (WHERE weekday = 6) AS BIGINT) AS clicks_sat,
    CAST(sum(clicks) FILTER (WHERE weekday = 7) AS BIGINT) AS clicks_sun,
    CAST(sum(records_created) FILTER (WHERE weekday = 1) AS BIGINT) AS records_mon,
    CAST(sum(records_created) FILTER (WHERE weekday = 2) AS BIGINT) AS records_tue,
    CAST(sum(records_created) FILTER (WHERE weekday = 3) AS BIGINT) AS records_wed,
    CAST(sum(records_created) FILTER (WHERE weekday = 4) AS BIGINT) AS records_thu,
    CAST(sum(records_created) FILTER (WHERE weekday = 5) AS BIGINT) AS records_fri,
    CAST(sum(records_created) FILTER (WHERE weekday = 6) AS BIGINT) AS records_sat,
    CAST(sum(records_created) FILTER (WHERE weekday = 7) AS BIGINT) AS records_sun
FROM kept
GROUP BY week, week_start, account_id, application, user_id
ORDER BY account_id, application, week_start, user_id
