-- grain: a period x a month (or week) that it lies in x what is read of that: users, states, changes, scores, terms
WITH steps AS (
    SELECT
        periods.period_no,
        steps.*
    FROM core.kpi_periods AS periods
    INNER JOIN core.kpi_base_periods AS steps
        ON periods.calendar = steps.calendar AND steps.nth BETWEEN periods.first_nth AND periods.last_nth
),

days AS (
    SELECT
        period_no,
        CASE calendar WHEN 'month' THEN 'core.monthly_users' ELSE 'core.weekly_users' END AS name,
        first_day AS day
    FROM steps
    UNION ALL
    SELECT
        period_no,
        'core.growth_events' AS name,
        first_day AS day
    FROM steps
    UNION ALL
    SELECT
        period_no,
        'core.usage_states' AS name,
        state_week AS day
    FROM steps
    UNION ALL
    SELECT
        period_no,
        'core.score_snapshots' AS name,
        state_week AS day
    FROM steps
),

contents AS (
    SELECT
        calendar,
        nth,
        'terms' AS name,
        count(*) AS row_count,
        sum(hash(account_id, application, seats, round(annual_value, 6))) AS row_hashes
    FROM kpi_terms
    GROUP BY calendar, nth
    UNION ALL
    SELECT
        calendar,
        nth,
        'subscribed' AS name,
        count(*) AS row_count,
        sum(hash(account_id, application, is_subscribed)) AS row_hashes
    FROM kpi_subscribed
    GROUP BY calendar, nth
)

SELECT
    CAST(periods.period_no AS VARCHAR) AS slice,
    'period ' || hash(periods) AS content
FROM core.kpi_periods AS periods
UNION ALL
SELECT
    CAST(period_no AS VARCHAR) AS slice,
    'step ' || hash(steps) AS content
FROM steps
UNION ALL
SELECT
    CAST(days.period_no AS VARCHAR) AS slice,
    concat_ws(' ', slices.name, slices.slice, slices.row_count, slices.row_hashes) AS content
FROM days
INNER JOIN meta.slices AS slices ON days.name = slices.name AND CAST(days.day AS VARCHAR) = slices.slice
UNION ALL
SELECT
    CAST(steps.period_no AS VARCHAR) AS slice,
    concat_ws(' ', contents.name, contents.calendar, contents.nth, contents.row_count, contents.row_hashes) AS content
FROM steps
INNER JOIN contents ON steps.calendar = contents.calendar AND steps.nth = contents.nth
