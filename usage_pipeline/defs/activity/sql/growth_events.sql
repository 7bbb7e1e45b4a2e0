-- grain: account x application x week or month: who came, who stayed, who was lost and why; users counted by account
WITH periods AS (
    -- an unknown period is left out: the ones beside it are compared with each other
    SELECT
        'week' AS period,
        week_start AS period_start,
        week_start + 6 AS period_end,
        row_number() OVER (ORDER BY week_start) AS nth
    FROM core.weeks
    WHERE is_complete
    UNION ALL
    SELECT
        'month' AS period,
        month_start AS period_start,
        month_end AS period_end,
        row_number() OVER (ORDER BY month_start) AS nth
    FROM core.months
    WHERE is_complete
),

-- use while subscribed only: what lies outside makes nobody active
monthly_use AS (
    SELECT
        users.month_start,
        users.account_id,
        users.application,
        users.user_id
    FROM core.monthly_users AS users
    SEMI JOIN core.subscription_periods AS subscription_periods
        ON
            users.account_id = subscription_periods.account_id
            AND users.application = subscription_periods.application
            AND users.month_start + INTERVAL 1 MONTH > subscription_periods.start_date
            AND users.month_start <= subscription_periods.end_date
    WHERE users.clicks > 0
),

account_application_use AS (
    SELECT
        'week' AS period,
        subscription_weeks.week_start AS period_start,
        account_applications.account_id,
        account_applications.application
    FROM core.subscription_weeks AS subscription_weeks
    INNER JOIN
        core.account_applications AS account_applications
        ON subscription_weeks.account_application_id = account_applications.account_application_id
    WHERE subscription_weeks.clicks > 0
    UNION ALL
    SELECT DISTINCT
        'month' AS period,
        month_start AS period_start,
        account_id,
        application
    FROM monthly_use
),

-- one number for account and user, whose few ten thousand never meet in 64 bits: text would take twice as long
user_use AS (
    SELECT
        'week' AS period,
        users.week_start AS period_start,
        any_value(users.account_id) AS account_id,
        hash(users.account_id, users.user_id) AS entity
    FROM core.weekly_users AS users
    INNER JOIN
        core.account_applications AS account_applications
        ON users.account_id = account_applications.account_id AND users.application = account_applications.application
    SEMI JOIN
        core.subscription_weeks AS subscription_weeks
        ON
            users.week_start = subscription_weeks.week_start
            AND account_applications.account_application_id = subscription_weeks.account_application_id
    WHERE users.clicks > 0 AND users.user_id IS NOT NULL
    GROUP BY users.week_start, entity
    UNION ALL
    SELECT
        'month' AS period,
        month_start AS period_start,
        any_value(account_id) AS account_id,
        hash(account_id, user_id) AS entity
    FROM monthly_use
    WHERE user_id IS NOT NULL
    GROUP BY month_start, entity
),

used AS (
    SELECT
        'application of an account' AS unit,
        period,
        period_start,
        account_id,
        application,
        hash(account_id, application) AS entity
    FROM account_application_use
    UNION ALL
    SELECT DISTINCT
        'account' AS unit,
        period,
        period_start,
        account_id,
        CAST(NULL AS VARCHAR) AS application,
        hash(account_id) AS entity
    FROM account_application_use
    UNION ALL
    SELECT
        'user' AS unit,
        period,
        period_start,
        account_id,
        CAST(NULL AS VARCHAR) AS application,
        entity
    FROM user_use
),

placed AS (
    SELECT
        used.unit,
        used.period,
        used.account_id,
        used.application,
        periods.nth,
        lag(periods.nth) OVER entity AS nth_before,
        lead(periods.nth) OVER entity AS nth_after
    FROM used
    INNER JOIN periods ON used.period = periods.period AND used.period_start = periods.period_start
    WINDOW
        entity AS (PARTITION BY used.unit, used.period, used.entity ORDER BY periods.nth)
),

came AS (
    SELECT
        unit,
        period,
        account_id,
        application,
        nth,
        CASE WHEN nth_before IS NULL THEN 'new' WHEN nth_before = nth - 1 THEN 'kept' ELSE 'reactivated' END AS change,
        count(*) AS number
    FROM placed
    GROUP BY ALL
),

lost AS (
    SELECT
        placed.unit,
        placed.period,
        placed.account_id,
        placed.application,
        placed.nth + 1 AS nth,
        periods.period_end,
        count(*) AS number
    FROM placed
    INNER JOIN periods ON placed.period = periods.period AND placed.nth + 1 = periods.nth
    WHERE placed.nth_after IS NULL OR placed.nth_after > placed.nth + 1
    GROUP BY ALL
),

-- where no subscription runs at the end of the period, the last one to end says why it was lost
ends AS (
    SELECT
        lost.unit,
        lost.account_id,
        lost.application,
        lost.period_end,
        bool_or(subscription_periods.end_date >= lost.period_end) AS is_subscribed,
        arg_max(
            struct_pack(d := subscription_periods.end_reason),
            (subscription_periods.end_date, coalesce(subscription_periods.end_reason, ''))
        ).d AS end_reason
    FROM (SELECT DISTINCT
        unit,
        account_id,
        application,
        period_end
    FROM lost) AS lost
    INNER JOIN core.subscription_periods AS subscription_periods
        ON
            lost.account_id = subscription_periods.account_id
            AND (lost.application IS NULL OR lost.application = subscription_periods.application)
            AND lost.period_end >= subscription_periods.start_date
    GROUP BY ALL
),

explained AS (
    SELECT
        lost.unit,
        lost.period,
        lost.account_id,
        lost.application,
        lost.nth,
        CASE
            WHEN ends.is_subscribed THEN 'lapsed'
            WHEN ends.end_reason = 'completed' THEN 'expired'
            ELSE 'churned'
        END AS change,
        lost.number
    FROM lost
    INNER JOIN ends
        ON
            lost.unit = ends.unit
            AND lost.account_id = ends.account_id
            AND lost.application IS NOT DISTINCT FROM ends.application
            AND lost.period_end = ends.period_end
),

changes AS (
    SELECT * FROM came
    UNION ALL
    SELECT * FROM explained
)

SELECT
    changes.unit,
    changes.period,
    periods.period_start,
    changes.account_id,
    changes.application,
    changes.change,
    CAST(changes.number AS BIGINT) AS number
FROM changes
INNER JOIN periods ON changes.period = periods.period AND changes.nth = periods.nth
-- the first period on record has nothing to be compared with
WHERE changes.nth > 1
