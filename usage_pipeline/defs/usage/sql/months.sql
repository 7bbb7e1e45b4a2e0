-- grain: one calendar month since the first week on record, and whether all of its weeks may be judged by
WITH spine AS (
    SELECT
        CAST(month AS DATE) AS month_start,
        CAST(month + INTERVAL 1 MONTH AS DATE) - 1 AS month_end
    FROM
        generate_series(
            (SELECT date_trunc('month', min(week_start)) FROM core.weeks),
            date_trunc('month', CAST($as_of_day AS DATE)),
            INTERVAL 1 MONTH
        ) AS series (month)
),

judged AS (
    SELECT
        spine.month_start,
        spine.month_end,
        min(weeks.week_start) AS first_week,
        max(weeks.week_start) AS last_week,
        bool_and(weeks.is_complete) AS are_weeks_complete,
        string_agg(
            strftime(weeks.week_start, $date_format) || ' (' || $words__week_status[weeks.week_status] || ')',
            ', ' ORDER BY weeks.week_start
        ) FILTER (WHERE NOT weeks.is_complete) AS incomplete_weeks
    FROM spine
    INNER JOIN core.weeks AS weeks ON spine.month_start <= weeks.week_start + 6 AND spine.month_end >= weeks.week_start
    GROUP BY spine.month_start, spine.month_end
)

SELECT
    month_start,
    month_end,
    -- months are counted from days: where only week folders come there are none
    $has_days AND are_weeks_complete AND first_week <= month_start AND last_week + 6 >= month_end AS is_complete,
    incomplete_weeks
FROM judged
ORDER BY month_start
