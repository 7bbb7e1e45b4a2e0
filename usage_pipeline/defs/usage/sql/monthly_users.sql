-- grain: account x application x user x calendar month, from the facts of the weeks that the months lie in
SELECT
    CAST(date_trunc('month', day) AS DATE) AS month_start,
    account_id,
    application,
    user_id,
    CAST(sum(clicks) AS BIGINT) AS clicks,
    CAST(sum(records_created) AS BIGINT) AS records_created
FROM read_parquet($files)
WHERE day BETWEEN $first_day AND $last_day AND day <= CAST($as_of_day AS DATE)
GROUP BY month_start, account_id, application, user_id
