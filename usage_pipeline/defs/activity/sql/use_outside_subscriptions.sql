-- grain: usage rows of accounts whose subscriptions are known, those on days outside all of them, and their accounts
WITH judged AS (
    SELECT days.*
    FROM core.account_days AS days
    SEMI JOIN ref.subscriptions AS known ON days.account_id = known.account_id
),

outside AS (
    SELECT judged.*
    FROM judged
    ANTI JOIN ref.subscriptions AS subscriptions
        ON
            judged.account_id = subscriptions.account_id
            AND judged.day >= subscriptions.start_date
            AND judged.day <= coalesce(subscriptions.end_date, DATE '9999-12-31')
)

SELECT
    (SELECT coalesce(sum(source_rows), 0) FROM judged) AS source_rows,
    coalesce(sum(source_rows), 0) AS rows_outside,
    count(DISTINCT account_id) AS accounts
FROM outside
