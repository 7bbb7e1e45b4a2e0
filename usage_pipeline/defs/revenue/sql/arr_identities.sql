-- grain: account x application x month whose movements are not the change of the ARR of its subscriptions
WITH months AS (
    SELECT month_start
    FROM core.monthly_arr
    WHERE month_start >= (SELECT min(month_start) FROM core.months)
    UNION
    SELECT month_start
    FROM core.arr_movements
),

-- the change of each subscription's value between the ends of two months, counted apart from `monthly_arr`
changed AS (
    SELECT
        months.month_start,
        terms.account_id,
        terms.application,
        sum(
            CASE
                WHEN CAST(months.month_start + INTERVAL 1 MONTH AS DATE) - 1 BETWEEN terms.start_date AND terms.end_date
                    THEN terms.annual_value
                ELSE 0
            END
            - CASE
                WHEN months.month_start - 1 BETWEEN terms.start_date AND terms.end_date THEN terms.annual_value ELSE 0
            END
        ) AS change
    FROM months
    CROSS JOIN core.subscription_terms AS terms
    WHERE
        terms.annual_value IS NOT NULL
        AND (
            terms.start_date BETWEEN months.month_start AND months.month_start + INTERVAL 1 MONTH - INTERVAL 1 DAY
            OR terms.end_date BETWEEN months.month_start - 1 AND months.month_start + INTERVAL 1 MONTH - INTERVAL 1 DAY
        )
    GROUP BY months.month_start, terms.account_id, terms.application
),

moved AS (
    SELECT
        month_start,
        account_id,
        application,
        sum(amount) AS amount
    FROM core.arr_movements
    GROUP BY month_start, account_id, application
)

SELECT
    coalesce(changed.month_start, moved.month_start) AS month_start,
    coalesce(changed.account_id, moved.account_id) AS account_id,
    coalesce(changed.application, moved.application) AS application,
    coalesce(changed.change, 0) AS change,
    coalesce(moved.amount, 0) AS amount
FROM changed
FULL JOIN moved
    ON
        changed.month_start = moved.month_start
        AND changed.account_id = moved.account_id
        AND changed.application IS NOT DISTINCT FROM moved.application
WHERE coalesce(changed.change, 0) != coalesce(moved.amount, 0)
