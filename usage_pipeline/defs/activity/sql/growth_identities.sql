-- grain: a unit and period whose users, counted apart from the changes, are not what the changes add up to
WITH counted AS (
    SELECT
        'application of an account' AS unit,
        'week' AS period,
        week_start AS period_start,
        count(*) AS used
    FROM core.subscription_weeks
    WHERE is_complete AND clicks > 0
    GROUP BY week_start
    UNION ALL
    SELECT
        'account' AS unit,
        'week' AS period,
        subscription_weeks.week_start AS period_start,
        count(DISTINCT account_applications.account_id) AS used
    FROM core.subscription_weeks AS subscription_weeks
    INNER JOIN
        core.account_applications AS account_applications
        ON subscription_weeks.account_application_id = account_applications.account_application_id
    WHERE subscription_weeks.is_complete AND subscription_weeks.clicks > 0
    GROUP BY subscription_weeks.week_start
    UNION ALL
    SELECT
        'account' AS unit,
        'month' AS period,
        users.month_start AS period_start,
        count(DISTINCT users.account_id) AS used
    FROM core.monthly_users AS users
    INNER JOIN core.subscription_periods AS subscription_periods
        ON
            users.account_id = subscription_periods.account_id
            AND users.application = subscription_periods.application
            AND users.month_start >= date_trunc('month', subscription_periods.start_date)
            AND users.month_start <= date_trunc('month', subscription_periods.end_date)
    WHERE users.clicks > 0
    GROUP BY users.month_start
),

periods AS (
    SELECT
        'week' AS period,
        week_start AS period_start,
        lag(week_start) OVER (ORDER BY week_start) AS start_before
    FROM core.weeks
    WHERE is_complete
    UNION ALL
    SELECT
        'month' AS period,
        month_start AS period_start,
        lag(month_start) OVER (ORDER BY month_start) AS start_before
    FROM core.months
    WHERE is_complete
),

changes AS (
    SELECT
        unit,
        period,
        period_start,
        sum(number) FILTER (WHERE change IN ('new', 'kept', 'reactivated')) AS came,
        sum(number) FILTER (WHERE change NOT IN ('new', 'reactivated')) AS there_before
    FROM core.growth_events
    GROUP BY unit, period, period_start
)

SELECT
    periods.period,
    periods.period_start,
    now.unit,
    now.used,
    changes.came,
    earlier.used AS used_before,
    changes.there_before
FROM periods
INNER JOIN counted AS now ON periods.period = now.period AND periods.period_start = now.period_start
LEFT JOIN counted AS earlier
    ON periods.period = earlier.period AND periods.start_before = earlier.period_start AND now.unit = earlier.unit
LEFT JOIN changes
    ON periods.period = changes.period AND periods.period_start = changes.period_start AND now.unit = changes.unit
WHERE
    periods.start_before IS NOT NULL
    AND (
        now.used != coalesce(changes.came, 0)
        OR coalesce(earlier.used, 0) != coalesce(changes.there_before, 0)
    )
