-- grain: month x account x application (none: the whole account) x movement: by how much it changed ARR
WITH differences AS (
    SELECT
        month_start,
        account_id,
        application,
        sum(arr_before) AS arr_before,
        sum(arr) AS arr
    FROM (
        SELECT
            month_start,
            account_id,
            application,
            CAST(0 AS DECIMAL(18, 2)) AS arr_before,
            arr
        FROM core.monthly_arr
        UNION ALL
        SELECT
            CAST(month_start + INTERVAL 1 MONTH AS DATE) AS month_start,
            account_id,
            application,
            arr AS arr_before,
            CAST(0 AS DECIMAL(18, 2)) AS arr
        FROM core.monthly_arr
    ) AS both_ends
    WHERE
        arr IS NOT NULL
        AND arr_before IS NOT NULL
        AND month_start >= (SELECT min(month_start) FROM core.months)
        AND month_start < date_trunc('month', CAST($as_of_day AS DATE))
    GROUP BY month_start, account_id, application
),

-- which run of days with ARR the account was in at both ends: none, the same, or another one
placed AS (
    SELECT
        differences.*,
        earlier.period_number AS period_before,
        now.period_number AS period_now
    FROM differences
    LEFT JOIN core.revenue_periods AS earlier
        ON
            differences.account_id = earlier.account_id
            AND differences.month_start - 1 BETWEEN earlier.start_date AND earlier.end_date
    LEFT JOIN core.revenue_periods AS now
        ON
            differences.account_id = now.account_id
            AND CAST(differences.month_start + INTERVAL 1 MONTH AS DATE) - 1 BETWEEN now.start_date AND now.end_date
),

moved AS (
    SELECT
        month_start,
        account_id,
        application,
        CASE WHEN arr > arr_before THEN 'expansion' ELSE 'contraction' END AS movement,
        arr - arr_before AS amount
    FROM placed
    WHERE period_before IS NOT DISTINCT FROM period_now
    UNION ALL
    SELECT
        month_start,
        account_id,
        application,
        'churned' AS movement,
        CASE WHEN period_now IS NULL THEN arr ELSE 0 END - arr_before AS amount
    FROM placed
    WHERE period_before IS NOT NULL AND period_before IS DISTINCT FROM period_now
    UNION ALL
    SELECT
        month_start,
        account_id,
        application,
        CASE WHEN period_now = 1 THEN 'new' ELSE 'reactivated' END AS movement,
        arr - CASE WHEN period_before IS NULL THEN arr_before ELSE 0 END AS amount
    FROM placed
    WHERE period_now IS NOT NULL AND period_before IS DISTINCT FROM period_now
)

SELECT
    month_start,
    account_id,
    application,
    movement,
    CAST(amount AS DECIMAL(18, 2)) AS amount
FROM moved
WHERE amount != 0
