-- grain: account x unbroken run of days with ARR, runs with fewer than renewal_gap_days between them taken as one
WITH reached AS (
    SELECT
        account_id,
        start_date,
        end_date,
        max(end_date) OVER (
            PARTITION BY account_id
            ORDER BY start_date, end_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS reached_until
    FROM core.subscription_terms
    WHERE annual_value > 0
),

numbered AS (
    SELECT
        *,
        count(*) FILTER (WHERE reached_until IS NULL OR start_date - reached_until - 1 >= $renewal_gap_days) OVER (
            PARTITION BY account_id ORDER BY start_date, end_date
        ) AS period_number
    FROM reached
)

SELECT
    account_id,
    CAST(period_number AS INTEGER) AS period_number,
    min(start_date) AS start_date,
    max(end_date) AS end_date
FROM numbered
GROUP BY account_id, period_number
ORDER BY account_id, period_number
