-- grain: account x application (or the whole account, subscribed as such) x subscription that began on record
WITH history AS (
    SELECT min(week_start) AS first_week
    FROM core.weeks
    WHERE has_arrived
),

of_applications AS (
    SELECT DISTINCT account_id FROM ref.subscriptions
    WHERE application IS NOT NULL AND account_id IS NOT NULL
),

starts AS (
    -- an inferred subscription begins with its first use: of that nothing is to be measured
    SELECT
        periods.account_id,
        periods.application,
        periods.period_number,
        periods.start_date,
        periods.end_date,
        CAST(terms.annual_value AS DOUBLE) AS annual_value
    FROM core.subscription_periods AS periods
    CROSS JOIN history
    -- what holds on as_of, or held last
    LEFT JOIN core.subscription_terms AS terms
        ON
            periods.account_id = terms.account_id
            AND periods.application = terms.application
            AND least(CAST($as_of_day AS DATE), periods.end_date) BETWEEN terms.start_date AND terms.end_date
    WHERE
        periods.basis = 'application'
        AND periods.start_date BETWEEN history.first_week AND CAST($as_of_day AS DATE)
    UNION ALL
    SELECT
        subscriptions.account_id,
        NULL AS application,
        1 AS period_number,
        subscriptions.start_date,
        coalesce(subscriptions.end_date, DATE '9999-12-31') AS end_date,
        subscriptions.annual_value
    FROM core.account_subscriptions AS subscriptions
    CROSS JOIN history
    WHERE
        subscriptions.is_subscription_known
        AND subscriptions.subscription_state IN ('active subscription', 'notice received', 'ended')
        AND subscriptions.start_date BETWEEN history.first_week AND CAST($as_of_day AS DATE)
        AND subscriptions.account_id NOT IN (SELECT account_id FROM of_applications)
),

use AS (
    SELECT
        account_id,
        application,
        week_start,
        first_day
    FROM core.weekly_usage
    WHERE clicks > 0
    UNION ALL
    SELECT
        account_id,
        NULL AS application,
        week_start,
        min(first_day) AS first_day
    FROM core.weekly_usage
    WHERE clicks > 0
    GROUP BY account_id, week_start
),

-- in the week of the start, of each user: which of their first and last day lie in the subscription; without days the
-- week is all that is known
days_used AS (
    SELECT
        account_id,
        application,
        week_start,
        first_day,
        last_day
    FROM core.weekly_users
    WHERE clicks > 0
    UNION ALL
    SELECT
        account_id,
        NULL AS application,
        week_start,
        first_day,
        last_day
    FROM core.weekly_users
    WHERE clicks > 0
),

first_days AS (
    SELECT
        starts.account_id,
        starts.application,
        starts.period_number,
        CASE
            WHEN NOT $has_days THEN greatest(days_used.first_day, starts.start_date)
            WHEN days_used.first_day >= starts.start_date THEN days_used.first_day
            WHEN days_used.last_day <= starts.end_date THEN days_used.last_day
        END AS day
    FROM starts
    INNER JOIN days_used
        ON
            starts.account_id = days_used.account_id
            AND starts.application IS NOT DISTINCT FROM days_used.application
            AND date_trunc('week', starts.start_date) = days_used.week_start
            AND starts.start_date <= days_used.last_day
            AND starts.end_date >= days_used.first_day
    UNION ALL
    SELECT
        starts.account_id,
        starts.application,
        starts.period_number,
        use.first_day AS day
    FROM starts
    INNER JOIN use
        ON
            starts.account_id = use.account_id
            AND starts.application IS NOT DISTINCT FROM use.application
            AND starts.start_date < use.week_start
            AND starts.end_date >= use.first_day
),

first_use AS (
    SELECT
        account_id,
        application,
        period_number,
        min(day) AS first_used_on
    FROM first_days
    GROUP BY account_id, application, period_number
),

full_weeks AS (
    SELECT
        starts.account_id,
        starts.application,
        starts.period_number,
        weeks.week_start,
        count(use.week_start) OVER (
            PARTITION BY starts.account_id, starts.application, starts.period_number
            ORDER BY weeks.week_start
            ROWS BETWEEN $steady_frame PRECEDING AND CURRENT ROW
        ) AS weeks_used
    FROM starts
    INNER JOIN core.weeks AS weeks
        ON
            weeks.is_complete
            AND starts.start_date <= weeks.week_start
            AND starts.end_date >= weeks.week_start + 6
    LEFT JOIN use
        ON
            starts.account_id = use.account_id
            AND starts.application IS NOT DISTINCT FROM use.application
            AND weeks.week_start = use.week_start
),

steady AS (
    SELECT
        account_id,
        application,
        period_number,
        count(*) AS weeks_subscribed,
        min(week_start) FILTER (WHERE weeks_used >= $steady_weeks) AS steady_week
    FROM full_weeks
    GROUP BY account_id, application, period_number
),

measured AS (
    SELECT
        starts.*,
        first_use.first_used_on,
        first_use.first_used_on - starts.start_date AS days_to_first_use,
        coalesce(steady.weeks_subscribed, 0) AS weeks_subscribed,
        steady.steady_week,
        -- weeks begun until the end of the week in which it was reached
        (steady.steady_week + 6 - starts.start_date) // 7 + 1 AS weeks_to_steady_use,
        starts.end_date >= CAST($as_of_day AS DATE) AS is_running
    FROM starts
    LEFT JOIN first_use
        ON
            starts.account_id = first_use.account_id
            AND starts.application IS NOT DISTINCT FROM first_use.application
            AND starts.period_number = first_use.period_number
    LEFT JOIN steady
        ON
            starts.account_id = steady.account_id
            AND starts.application IS NOT DISTINCT FROM steady.application
            AND starts.period_number = steady.period_number
),

-- of all that had the time, those that did not get there too: the median of those alone who did would flatter
peers AS (
    SELECT
        application,
        count(*) AS peers,
        quantile_disc(coalesce(CAST(days_to_first_use AS DOUBLE), CAST('infinity' AS DOUBLE)), 0.5) AS days,
        quantile_disc(coalesce(CAST(weeks_to_steady_use AS DOUBLE), CAST('infinity' AS DOUBLE)), 0.5) AS weeks
    FROM measured
    WHERE period_number = 1 AND weeks_subscribed >= $stuck_weeks
    GROUP BY application
    HAVING count(*) >= $peers_minimum
),

judged AS (
    SELECT
        measured.*,
        CASE
            WHEN measured.steady_week IS NOT NULL THEN 'steady use'
            WHEN NOT measured.is_running THEN 'ended before steady use'
            WHEN measured.weeks_subscribed >= $stuck_weeks THEN 'stuck'
            ELSE 'starting'
        END AS onboarding_state,
        peers.peers,
        CASE WHEN isfinite(peers.days) THEN peers.days END AS peers_days_to_first_use,
        CASE WHEN isfinite(peers.weeks) THEN peers.weeks END AS peers_weeks_to_steady_use
    FROM measured
    LEFT JOIN peers ON measured.application IS NOT DISTINCT FROM peers.application
)

SELECT
    judged.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    CAST(judged.period_number AS INTEGER) AS period_number,
    CAST(judged.start_date AS TIMESTAMP) AS start_date,
    CAST(nullif(judged.end_date, DATE '9999-12-31') AS TIMESTAMP) AS end_date,
    CAST(judged.weeks_subscribed AS BIGINT) AS weeks_subscribed,
    judged.onboarding_state,
    CAST(judged.first_used_on AS TIMESTAMP) AS first_used_on,
    CAST(judged.days_to_first_use AS BIGINT) AS days_to_first_use,
    CAST(judged.steady_week AS TIMESTAMP) AS steady_week,
    CAST(judged.weeks_to_steady_use AS BIGINT) AS weeks_to_steady_use,
    CAST(judged.peers AS BIGINT) AS peers,
    CAST(judged.peers_days_to_first_use AS BIGINT) AS peers_days_to_first_use,
    CAST(judged.peers_weeks_to_steady_use AS BIGINT) AS peers_weeks_to_steady_use,
    CASE
        WHEN judged.onboarding_state = 'stuck'
            THEN
                format($text__onboarding__stuck, judged.weeks_subscribed)
                || coalesce(
                    format($text__onboarding__first_used, strftime(judged.first_used_on, $date_format)),
                    $text__onboarding__not_used
                )
                || CASE
                    WHEN judged.peers IS NULL THEN ''
                    WHEN judged.peers_weeks_to_steady_use IS NULL THEN $text__onboarding__peers_neither
                    ELSE format($text__onboarding__peers_take, CAST(judged.peers_weeks_to_steady_use AS BIGINT))
                END
    END AS reason,
    judged.annual_value
FROM judged
INNER JOIN core.account_names AS names ON judged.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON judged.application = applications.application_key
ORDER BY judged.start_date DESC, names.account, applications.application
