-- a row: account x application ever in contract or in use: a number instead of two texts
SELECT
    CAST(row_number() OVER (ORDER BY account_id, application) AS INTEGER) AS pair_no,
    CAST(dense_rank() OVER (ORDER BY account_id) AS INTEGER) AS account_no,
    account_id,
    application
FROM (
    SELECT
        account_id,
        application
    FROM core.pairs
    UNION
    SELECT
        account_id,
        application
    FROM core.weekly_usage
) AS known
