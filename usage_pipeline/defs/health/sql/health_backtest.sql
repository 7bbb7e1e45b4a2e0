-- grain: level (accounts or applications) x days ahead x quarter (or all of them) x color: what became of them
WITH horizons AS (SELECT CAST(unnest([90, 180]) AS INTEGER) AS days_ahead),

-- of the subscriptions that nobody had given notice for; one that is completed or renewed is no loss and no stay
observed AS (
    SELECT
        scores.as_of_week,
        horizons.days_ahead,
        scores.account_id,
        scores.application,
        scores.health_color,
        coalesce(periods.notice_date, nullif(periods.end_date, DATE '9999-12-31')) AS left_on,
        coalesce(
            periods.end_reason IN ('completed', 'renewed')
            AND periods.end_date <= scores.as_of_week + 6 + horizons.days_ahead,
            FALSE
        ) AS is_completed,
        coalesce(
            left_on > scores.as_of_week + 6
            AND left_on <= scores.as_of_week + 6 + horizons.days_ahead
            AND NOT coalesce(periods.end_reason IN ('completed', 'renewed'), FALSE),
            FALSE
        ) AS has_churned
    FROM core.health_scores AS scores
    CROSS JOIN horizons
    INNER JOIN core.subscription_periods AS periods
        ON
            scores.account_id = periods.account_id
            AND scores.application = periods.application
            AND scores.as_of_week + 6 >= periods.start_date
            AND scores.as_of_week + 6 < periods.end_date
    WHERE
        scores.application IS NOT NULL
        AND NOT scores.has_notice
        AND scores.basis != 'usage'
        AND scores.as_of_week + 6 + horizons.days_ahead < CAST($as_of_day AS DATE)
),

subjects AS (
    SELECT
        'application of an account' AS unit,
        as_of_week,
        days_ahead,
        health_color,
        has_churned
    FROM observed
    WHERE NOT is_completed
    UNION ALL
    -- an account has churned with the last of its applications, and is judged by its own health
    SELECT
        'account' AS unit,
        observed.as_of_week,
        observed.days_ahead,
        any_value(accounts.health_color) AS health_color,
        bool_and(observed.has_churned) AS has_churned
    FROM observed
    INNER JOIN core.health_scores AS accounts
        ON
            observed.as_of_week = accounts.as_of_week
            AND observed.account_id = accounts.account_id
            AND accounts.application IS NULL
    WHERE NOT observed.is_completed AND NOT accounts.has_notice
    GROUP BY observed.as_of_week, observed.days_ahead, observed.account_id
),

newest AS (SELECT max(as_of_week) AS as_of_week FROM core.health_scores),

-- pooled over quarters whose days ahead do not overlap, so that no loss counts twice
counted AS (
    SELECT
        subjects.unit,
        subjects.days_ahead,
        strftime(subjects.as_of_week, '%Y-%m-%d') AS quarter,
        subjects.health_color,
        count(*) AS subjects,
        count(*) FILTER (WHERE subjects.has_churned) AS churned
    FROM subjects
    GROUP BY ALL
    UNION ALL
    SELECT
        subjects.unit,
        subjects.days_ahead,
        'all' AS quarter,
        subjects.health_color,
        count(*) AS subjects,
        count(*) FILTER (WHERE subjects.has_churned) AS churned
    FROM subjects
    CROSS JOIN newest
    WHERE subjects.days_ahead = 90 OR ((newest.as_of_week - subjects.as_of_week) // 91) % 2 = 0
    GROUP BY ALL
),

rates AS (
    SELECT
        *,
        churned / subjects AS churn_rate,
        -- Wilson's interval of 95 %
        (churned + 1.92) / (subjects + 3.84) AS middle,
        1.96 / (subjects + 3.84) * sqrt(churned * (subjects - churned) / subjects + 0.96) AS half
    FROM counted
),

-- red against green: Katz's interval of the ratio of two rates, with half an event added to each
ratios AS (
    SELECT
        red.unit,
        red.days_ahead,
        red.quarter,
        red.churned + green.churned AS events,
        ((red.churned + 0.5) / (red.subjects + 0.5)) / ((green.churned + 0.5) / (green.subjects + 0.5)) AS ratio,
        sqrt(
            1 / (red.churned + 0.5) - 1 / (red.subjects + 0.5) + 1 / (green.churned + 0.5) - 1 / (green.subjects + 0.5)
        ) AS spread
    FROM counted AS red
    INNER JOIN counted AS green
        ON
            red.unit = green.unit
            AND red.days_ahead = green.days_ahead
            AND red.quarter = green.quarter
            AND red.health_color = 'red'
            AND green.health_color = 'green'
)

SELECT
    rates.unit,
    CAST(rates.days_ahead AS BIGINT) AS days_ahead,
    rates.quarter,
    rates.health_color,
    rates.subjects,
    rates.churned,
    rates.churn_rate,
    greatest(0, rates.middle - rates.half) AS churn_rate_lower,
    least(1, rates.middle + rates.half) AS churn_rate_upper,
    CASE WHEN rates.health_color = 'red' THEN ratios.ratio END AS red_to_green,
    CASE WHEN rates.health_color = 'red' THEN exp(ln(ratios.ratio) - 1.96 * ratios.spread) END AS red_to_green_lower,
    CASE WHEN rates.health_color = 'red' THEN exp(ln(ratios.ratio) + 1.96 * ratios.spread) END AS red_to_green_upper,
    CASE
        WHEN ratios.ratio IS NULL THEN $text__health__signal__not_both
        WHEN ratios.events < $health_events
            THEN format($text__health__signal__too_few, ratios.events, $health_events)
        WHEN ratios.ratio >= $health_ratio AND exp(ln(ratios.ratio) - 1.96 * ratios.spread) > 1
            THEN format($text__health__signal__signal, translate(format('{:.1f}', ratios.ratio), ',.', $separators))
        ELSE format($text__health__signal__none, translate(format('{:.1f}', ratios.ratio), ',.', $separators))
    END AS health_signal
FROM rates
LEFT JOIN ratios
    ON rates.unit = ratios.unit AND rates.days_ahead = ratios.days_ahead AND rates.quarter = ratios.quarter
ORDER BY rates.unit, rates.days_ahead, rates.quarter, rates.health_color
