-- a row: account x application x user x week of the days, from the facts of the weeks loaded and their neighbours
SELECT
    week_start,
    account_id,
    application,
    user_id,
    CAST(sum(clicks) AS BIGINT) AS clicks,
    CAST(sum(records_created) AS BIGINT) AS records_created,
    CAST(sum(source_rows) AS BIGINT) AS source_rows,
    min(
        week_start + CASE
            WHEN clicks_mon IS NOT NULL THEN 0
            WHEN clicks_tue IS NOT NULL THEN 1
            WHEN clicks_wed IS NOT NULL THEN 2
            WHEN clicks_thu IS NOT NULL THEN 3
            WHEN clicks_fri IS NOT NULL THEN 4
            WHEN clicks_sat IS NOT NULL THEN 5
            WHEN clicks_sun IS NOT NULL THEN 6
            ELSE 0
        END
    ) AS first_day,
    max(
        week_start + CASE
            WHEN clicks_sun IS NOT NULL THEN 6
            WHEN clicks_sat IS NOT NULL THEN 5
            WHEN clicks_fri IS NOT NULL THEN 4
            WHEN clicks_thu IS NOT NULL THEN 3
            WHEN clicks_wed IS NOT NULL THEN 2
            WHEN clicks_tue IS NOT NULL THEN 1
            WHEN clicks_mon IS NOT NULL THEN 0
            ELSE 6
        END
    ) AS last_day
FROM read_parquet($files)
WHERE week_start BETWEEN $first_week AND $last_week
GROUP BY week_start, account_id, application, user_id
