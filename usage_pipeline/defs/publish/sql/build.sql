-- grain: the build itself
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

counts AS (
    SELECT
        count(*) AS accounts,
        count(*) FILTER (WHERE NOT is_subscription_known) AS without_subscription
    FROM core.account_subscriptions
),

suspect AS (
    SELECT
        count(*) AS weeks,
        string_agg(
            strftime(week_start, $date_format) || ' (' || $words__week_status[week_status] || ')',
            ', ' ORDER BY week_start DESC
        ) FILTER (WHERE nth <= 3) AS newest
    FROM (
        SELECT
            week_start,
            week_status,
            row_number() OVER (ORDER BY week_start DESC) AS nth
        FROM core.weeks
        WHERE NOT is_complete AND NOT is_running AND week_start >= $window_start
    ) AS incomplete
),

running AS (SELECT bool_or(is_running AND has_arrived) AS has_data FROM core.weeks)

SELECT
    $build_id AS build_id,
    CAST($as_of_time AS TIMESTAMP) AS as_of,
    CAST(newest.week_start AS TIMESTAMP) AS newest_week,
    CAST(newest.week_start + 6 AS TIMESTAMP) AS data_through,
    format($text__build__accounts, $name, counts.accounts)
    || CASE
        WHEN counts.without_subscription = counts.accounts THEN $text__build__none_known
        WHEN counts.without_subscription = 0 THEN $text__build__all_known
        ELSE format($text__build__some_unknown, counts.without_subscription)
    END
    || CASE
        WHEN suspect.weeks = 0 THEN ''
        WHEN suspect.weeks <= 3 THEN format($text__build__weeks_left_out, suspect.newest)
        ELSE format($text__build__many_weeks_left_out, suspect.weeks, suspect.newest)
    END
    || CASE
        WHEN running.has_data THEN $text__build__running_week
        ELSE '.'
    END
    || $held_back
    || format($text__build__id, $build_id) AS sentence
FROM newest
CROSS JOIN counts
CROSS JOIN suspect
CROSS JOIN running
