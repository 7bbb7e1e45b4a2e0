-- a row: one row of the usage source that belongs to the week, with the reason why it is kept aside, if any
CREATE OR REPLACE TEMP TABLE usage_rows AS
WITH placed AS (
    SELECT
        *,
        greatest(0, date_diff('day', day, $week), date_diff('day', $week, day) - 6) AS days_outside,
        -- a folder named by calendar year can hold two ISO weeks: a row belongs to the nearer one
        coalesce(
            list_min(
                list_transform(
                    CAST($other_weeks AS DATE[]),
                    LAMBDA other: greatest(0, date_diff('day', day, other), date_diff('day', other, day) - 6)
                )
            ),
            1000000
        ) AS days_outside_others
    FROM source_usage
)

SELECT
    CAST($week AS DATE) AS week,
    account_id,
    application,
    user_id,
    event_time,
    CASE WHEN $has_clicks THEN clicks ELSE 1 END AS clicks,
    records_created,
    day,
    is_duplicate,
    CASE
        WHEN account_id IS NULL THEN 'no account'
        WHEN application IS NULL THEN 'no application'
        WHEN $has_days AND day IS NULL THEN 'no day, or one that cannot be read'
        WHEN $has_days AND days_outside > $late_days THEN 'outside its folder''s week'
        WHEN $has_clicks AND clicks IS NULL THEN 'no clicks, or not a number'
        WHEN clicks < 0 OR records_created < 0 THEN 'negative count'
    END AS reason
FROM placed
WHERE
    CASE
        -- a source without week folders is cut by day; rows without a day are rejected with the window's first week,
        -- and in a folder of two weeks with the earlier
        WHEN day IS NULL AND $is_whole THEN $is_first_week
        WHEN $is_whole THEN days_outside = 0
        WHEN day IS NULL THEN coalesce($week < list_min(CAST($other_weeks AS DATE[])), TRUE)
        ELSE days_outside <= days_outside_others
    END
