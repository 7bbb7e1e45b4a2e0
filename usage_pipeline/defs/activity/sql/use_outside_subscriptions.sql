-- grain: usage rows of accounts whose contracts are known, those on days outside all of them, and in how many accounts
WITH judged AS (
    SELECT days.*
    FROM core.account_days AS days
    SEMI JOIN ref.subscriptions AS known ON days.account_id = known.account_id
),

outside AS (
    SELECT judged.*
    FROM judged
    ANTI JOIN ref.subscriptions AS contracts
        ON
            judged.account_id = contracts.account_id
            AND judged.day >= contracts.start_date
            AND judged.day <= coalesce(contracts.end_date, DATE '9999-12-31')
)

SELECT
    (SELECT coalesce(sum(source_rows), 0) FROM judged) AS source_rows,
    coalesce(sum(source_rows), 0) AS rows_outside,
    count(DISTINCT account_id) AS accounts
FROM outside
