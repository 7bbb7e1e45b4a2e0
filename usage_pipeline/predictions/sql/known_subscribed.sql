-- grain: account x subscribed application in the whole week of as-of, without an end or a notice known then
WITH dated AS (
    SELECT
        *,
        -- the renewal that was announced, or else the next anniversary of the start
        CASE
            WHEN renewal_date > CAST($as_of_week AS DATE) + 6 THEN renewal_date
            ELSE
                CAST(
                    start_date
                    + to_years(CAST(date_sub('year', start_date, CAST($as_of_week AS DATE) + 6) + 1 AS INTEGER)) AS DATE
                )
        END AS next_renewal
    FROM core.subscription_periods
    WHERE
        start_date <= CAST($as_of_week AS DATE)
        AND end_date > CAST($as_of_week AS DATE) + 6
        AND notice_date IS NULL
)

SELECT
    account_id,
    application,
    basis != 'usage' AS has_subscription,
    start_date AS customer_since,
    CAST(next_renewal - (CAST($as_of_week AS DATE) + 6) AS INTEGER) AS days_to_renewal
FROM dated
