-- grain: month x account x application (none: the whole account) subscribed at its end or 12 months before: its ARR
WITH both_ends AS (
    SELECT
        month_start,
        account_id,
        application,
        sum(starting_arr) AS starting_arr,
        sum(arr) AS arr,
        sum(subscriptions) AS subscriptions,
        sum(subscriptions_with_value) AS subscriptions_with_value
    FROM (
        SELECT
            month_start,
            account_id,
            application,
            CAST(NULL AS DECIMAL(18, 2)) AS starting_arr,
            arr,
            subscriptions,
            subscriptions_with_value
        FROM core.monthly_arr
        UNION ALL
        SELECT
            CAST(month_start + INTERVAL 12 MONTH AS DATE) AS month_start,
            account_id,
            application,
            arr AS starting_arr,
            CAST(NULL AS DECIMAL(18, 2)) AS arr,
            0 AS subscriptions,
            0 AS subscriptions_with_value
        FROM core.monthly_arr
    ) AS ends
    WHERE
        month_start >= (SELECT min(month_start) FROM core.months)
        AND month_start < date_trunc('month', CAST($as_of_day AS DATE))
    GROUP BY month_start, account_id, application
),

-- where neither end has a value nothing is known; where one has, the other has none of it
known AS (
    SELECT
        month_start,
        account_id,
        application,
        subscriptions,
        subscriptions_with_value,
        CASE WHEN arr IS NOT NULL THEN coalesce(starting_arr, 0) ELSE starting_arr END AS starting_arr,
        CASE WHEN starting_arr IS NOT NULL THEN coalesce(arr, 0) ELSE arr END AS arr
    FROM both_ends
    -- where no subscription has a value, nothing is shown
    WHERE (SELECT count(annual_value) FROM core.subscription_terms) > 0
),

-- which run of days with ARR the account was in at both ends: none, the same, or another one
placed AS (
    SELECT
        known.*,
        earlier.period_number AS period_before,
        now.period_number AS period_now,
        coalesce(earlier.period_number, 0) = coalesce(now.period_number, 0) AS is_same
    FROM known
    LEFT JOIN core.revenue_periods AS earlier
        ON
            known.account_id = earlier.account_id
            AND CAST(known.month_start - INTERVAL 11 MONTH AS DATE) - 1 BETWEEN earlier.start_date AND earlier.end_date
    LEFT JOIN core.revenue_periods AS now
        ON
            known.account_id = now.account_id
            AND CAST(known.month_start + INTERVAL 1 MONTH AS DATE) - 1 BETWEEN now.start_date AND now.end_date
),

classified AS (
    SELECT
        *,
        CASE WHEN is_same THEN greatest(starting_arr - arr, 0) ELSE 0 END AS contraction,
        CASE WHEN is_same THEN greatest(arr - starting_arr, 0) ELSE 0 END AS expansion,
        CASE
            WHEN is_same OR period_before IS NULL THEN 0
            WHEN period_now IS NULL THEN starting_arr - arr
            ELSE starting_arr
        END AS churned,
        CASE WHEN NOT is_same AND period_before IS NOT NULL AND period_now IS NOT NULL THEN arr ELSE 0 END
            AS reactivated,
        CASE WHEN NOT is_same AND period_before IS NULL THEN arr - starting_arr ELSE 0 END AS joined
    FROM placed
)

SELECT
    month_start,
    account_id,
    application,
    CAST(starting_arr AS DECIMAL(18, 2)) AS starting_arr,
    CASE WHEN starting_arr IS NOT NULL THEN CAST(contraction AS DECIMAL(18, 2)) END AS contraction,
    CASE WHEN starting_arr IS NOT NULL THEN CAST(churned AS DECIMAL(18, 2)) END AS churned,
    CASE WHEN starting_arr IS NOT NULL THEN CAST(expansion AS DECIMAL(18, 2)) END AS expansion,
    CASE WHEN starting_arr IS NOT NULL THEN CAST(reactivated AS DECIMAL(18, 2)) END AS reactivated,
    CASE WHEN starting_arr IS NOT NULL THEN CAST(joined AS DECIMAL(18, 2)) END AS joined,
    CAST(arr AS DECIMAL(18, 2)) AS arr,
    CAST(subscriptions AS BIGINT) AS subscriptions,
    CAST(subscriptions_with_value AS BIGINT) AS subscriptions_with_value
FROM classified
