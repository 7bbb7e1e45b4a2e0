-- grain: account x application that was ever subscribed, and the number that stands for both in large tables
WITH subscribed AS (
    SELECT DISTINCT
        account_id,
        application
    FROM core.subscription_periods
),

numbered AS (
    SELECT
        subscribed.account_id,
        subscribed.application,
        kept.account_application_id
    FROM subscribed
    LEFT JOIN kept_numbers AS kept
        ON subscribed.account_id = kept.account_id AND subscribed.application = kept.application
)

SELECT
    -- a number once given stays; those that come get the next, in an order that means nothing later
    CAST(
        coalesce(
            account_application_id,
            (SELECT coalesce(max(account_application_id), 0) FROM kept_numbers)
            + row_number() OVER (PARTITION BY account_application_id IS NULL ORDER BY account_id, application)
        ) AS INTEGER
    ) AS account_application_id,
    account_id,
    application
FROM numbered
ORDER BY account_application_id
