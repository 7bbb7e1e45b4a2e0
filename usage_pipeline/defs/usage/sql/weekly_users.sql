-- grain: account x application x user x week of the days, from the facts of the weeks loaded and their neighbours
SELECT
    week_start,
    account_id,
    application,
    user_id,
    CAST(sum(clicks) AS BIGINT) AS clicks,
    CAST(sum(records_created) AS BIGINT) AS records_created,
    CAST(sum(source_rows) AS BIGINT) AS source_rows,
    -- without days, all that is known is the week
    coalesce(min(day), week_start) AS first_day,
    coalesce(max(day), least(week_start + 6, CAST($as_of_day AS DATE))) AS last_day
FROM read_parquet($files)
WHERE
    week_start BETWEEN $first_week AND $last_week
    -- what is dated after as_of waits in the facts until its day has come
    AND coalesce(day, week_start) <= CAST($as_of_day AS DATE)
GROUP BY week_start, account_id, application, user_id
