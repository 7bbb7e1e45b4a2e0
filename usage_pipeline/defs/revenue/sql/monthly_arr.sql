-- grain: month x account x application (none: the whole account) subscribed on the last day of the month: its ARR then
WITH months AS (
    -- months that have ended, and the twelve before those on record, which retention starts from
    SELECT
        CAST(month AS DATE) AS month_start,
        CAST(month + INTERVAL 1 MONTH AS DATE) - 1 AS month_end
    FROM
        generate_series(
            (SELECT min(month_start) FROM core.months) - INTERVAL 12 MONTH,
            date_trunc('month', CAST($as_of_day AS DATE)) - INTERVAL 1 MONTH,
            INTERVAL 1 MONTH
        ) AS series (month)
),

-- a row about the whole account without a value only frames the applications that it is sold as
framed AS (
    SELECT DISTINCT account_id
    FROM core.subscription_terms
    WHERE application IS NOT NULL
)

SELECT
    months.month_start,
    terms.account_id,
    terms.application,
    count(*) AS subscriptions,
    count(terms.annual_value) AS subscriptions_with_value,
    CAST(sum(terms.annual_value) AS DECIMAL(18, 2)) AS arr
FROM core.subscription_terms AS terms
INNER JOIN months ON months.month_end BETWEEN terms.start_date AND terms.end_date
WHERE
    terms.application IS NOT NULL
    OR terms.annual_value IS NOT NULL
    OR terms.account_id NOT IN (SELECT account_id FROM framed)
GROUP BY months.month_start, terms.account_id, terms.application
