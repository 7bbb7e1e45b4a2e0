-- grain: what came after a week of as-of: target x account x application (none: of the whole account) x week
-- the horizon begins after the gap: what happens before it makes no row
WITH weeks AS (
    SELECT
        unnest(CAST($as_of_weeks AS DATE[])) AS as_of_week,
        7 * CAST($lead_weeks AS INTEGER) AS gap
),

newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

subscriptions AS (
    SELECT
        weeks.as_of_week,
        weeks.as_of_week + 6 + weeks.gap AS gap_end,
        numbered.account_application_id,
        subscription_periods.account_id,
        subscription_periods.application,
        subscription_periods.basis,
        subscription_periods.end_date,
        -- a subscription that was completed is no loss; an end without a reason is one
        CASE
            WHEN
                subscription_periods.end_date < DATE '9999-12-31'
                AND subscription_periods.end_reason IN ('completed', 'renewed')
                THEN NULL
            ELSE coalesce(subscription_periods.notice_date, nullif(subscription_periods.end_date, DATE '9999-12-31'))
        END AS left_on,
        subscription_periods.end_reason IN ('completed', 'renewed')
        AND subscription_periods.end_date
        <= weeks.as_of_week + 6 + weeks.gap + CAST($churn_days AS INTEGER) AS is_completed
    FROM weeks
    INNER JOIN core.subscription_periods AS subscription_periods
        ON
            weeks.as_of_week >= subscription_periods.start_date
            AND weeks.as_of_week + 6 < subscription_periods.end_date
            AND (subscription_periods.notice_date IS NULL OR weeks.as_of_week + 6 < subscription_periods.notice_date)
    INNER JOIN core.account_applications AS numbered
        ON
            subscription_periods.account_id = numbered.account_id
            AND subscription_periods.application = numbered.application
),

low AS (
    SELECT
        subscriptions.as_of_week,
        subscriptions.account_id,
        subscriptions.application,
        bool_or(later.usage_state IN ('low', 'inactive')) AS outcome
    FROM subscriptions
    CROSS JOIN newest
    INNER JOIN core.usage_states AS states
        ON
            subscriptions.account_application_id = states.account_application_id
            AND subscriptions.as_of_week = states.week_start
    INNER JOIN core.usage_states AS later
        ON
            subscriptions.account_application_id = later.account_application_id
            AND subscriptions.gap_end < later.week_start
            AND subscriptions.gap_end + 7 * CAST($low_weeks AS INTEGER) > later.week_start
    WHERE
        states.usage_state = 'active'
        AND subscriptions.end_date >= subscriptions.gap_end + 7 * CAST($low_weeks AS INTEGER)
        AND subscriptions.gap_end - 6 + 7 * CAST($low_weeks AS INTEGER) <= newest.week_start
    GROUP BY subscriptions.as_of_week, subscriptions.account_id, subscriptions.application
),

observed AS (
    SELECT
        *,
        coalesce(left_on <= gap_end + CAST($churn_days AS INTEGER), FALSE) AS outcome
    FROM subscriptions
    WHERE
        basis != 'usage'
        AND NOT coalesce(is_completed, FALSE)
        AND NOT coalesce(left_on <= gap_end, FALSE)
        AND gap_end + CAST($churn_days AS INTEGER) < CAST($as_of_day AS DATE)
)

SELECT
    'low usage' AS target,
    as_of_week,
    account_id,
    application,
    outcome
FROM low
UNION ALL
SELECT
    'churn' AS target,
    as_of_week,
    account_id,
    application,
    outcome
FROM observed
UNION ALL
-- an account is lost with the last of its applications
SELECT
    'account churn' AS target,
    as_of_week,
    account_id,
    NULL AS application,
    bool_and(outcome) AS outcome
FROM observed
GROUP BY as_of_week, account_id
