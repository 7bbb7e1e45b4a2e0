-- grain: account x day that somebody came; none where only week folders come
SELECT
    account_id,
    day,
    CAST(sum(clicks) AS BIGINT) AS clicks,
    CAST(sum(source_rows) AS BIGINT) AS source_rows
FROM read_parquet($files)
WHERE day BETWEEN $first_day AND $last_day AND day <= CAST($as_of_day AS DATE)
GROUP BY account_id, day
