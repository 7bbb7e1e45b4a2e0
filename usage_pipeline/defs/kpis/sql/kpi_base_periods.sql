-- grain: a complete week or month, or the month that runs: what periods are made of
WITH complete_weeks AS (
    SELECT
        week_start,
        week_start + 6 AS week_end,
        last_year_week
    FROM core.weeks
    WHERE is_complete
),

first_week AS (
    SELECT min(week_start) AS week_start
    FROM core.weeks
    WHERE has_arrived
),

steps AS (
    SELECT
        'week' AS calendar,
        CAST((week_start - DATE '1970-01-05') / 7 AS INTEGER) AS nth,
        week_start AS first_day,
        week_end AS last_day,
        TRUE AS is_complete,
        CAST((last_year_week - DATE '1970-01-05') / 7 AS INTEGER) AS nth_year_ago
    FROM complete_weeks
    UNION ALL
    SELECT
        'month' AS calendar,
        CAST(12 * year(months.month_start) + month(months.month_start) - 1 AS INTEGER) AS nth,
        months.month_start AS first_day,
        least(months.month_end, CAST($as_of_day AS DATE)) AS last_day,
        months.is_complete,
        CAST(12 * year(months.month_start) + month(months.month_start) - 13 AS INTEGER) AS nth_year_ago
    FROM core.months AS months
    LEFT JOIN core.weeks AS last_week ON months.month_end BETWEEN last_week.week_start AND last_week.week_start + 6
    WHERE
        months.is_complete
        -- it runs until its last week has ended and settled
        OR (
            $has_days
            AND coalesce(
                last_week.week_status IN (
                    'running', 'not settled yet', 'not read since it ended', 'last hours not arrived'
                ),
                TRUE
            )
            AND months.month_start >= (SELECT week_start FROM first_week)
        )
),

numbered AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY calendar, is_complete ORDER BY nth) AS place
    FROM steps
)

SELECT
    numbered.* EXCLUDE (place),
    -- states and risks are those of the last complete week that ends in it
    max(complete_weeks.week_start) AS state_week,
    -- the first on record has nothing to be compared with
    numbered.is_complete AND numbered.place > 1 AS is_growth_known,
    coalesce(
        max(complete_weeks.week_start) IN (
            SELECT as_of_week FROM core.score_snapshots
            WHERE application IS NOT NULL AND has_signal
        ),
        FALSE
    ) AS is_risk_known
FROM numbered
LEFT JOIN complete_weeks ON complete_weeks.week_end BETWEEN numbered.first_day AND numbered.last_day
GROUP BY ALL
