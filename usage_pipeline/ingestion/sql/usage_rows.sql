-- grain: one row of the usage source that belongs to the week, with the reason why it is kept aside, if any
-- read by DuckDB and, translated, by Spark, to which a difference of dates is no number: hence date_diff
SELECT
    CAST($week AS DATE) AS week,
    account_id,
    application,
    user_id,
    event_time,
    CASE WHEN $has_clicks THEN clicks ELSE 1 END AS clicks,
    records_created,
    day,
    has_unreadable_user,
    has_unreadable_event,
    is_duplicate,
    source_file,
    source_row,
    CASE
        WHEN account_id IS NULL THEN 'no account'
        WHEN application IS NULL THEN 'no application'
        -- a day without end has no distance to any other
        WHEN $has_days AND date_diff('day', day, CAST($week AS DATE)) IS NULL THEN 'no day, or one that cannot be read'
        WHEN
            $has_days
            AND greatest(0, date_diff('day', day, CAST($week AS DATE)), date_diff('day', CAST($week AS DATE), day) - 6)
            > $late_days
            THEN 'outside its folder''s week'
        WHEN $has_clicks AND clicks IS NULL THEN 'no clicks, or not a whole number'
        WHEN has_unreadable_records THEN 'records created are not a whole number'
        WHEN clicks < 0 OR records_created < 0 THEN 'negative count'
        WHEN clicks > $largest_count OR records_created > $largest_count THEN 'absurd count'
    END AS reason
FROM source_usage
WHERE
    CASE
        -- a source without week folders is cut by day; rows without a day are rejected with the window's first week,
        -- and in a folder of two weeks with the earlier
        WHEN date_diff('day', CAST($week AS DATE), day) IS NULL AND $is_whole THEN $is_first_week
        WHEN $is_whole THEN date_diff('day', CAST($week AS DATE), day) BETWEEN 0 AND 6
        WHEN date_diff('day', CAST($week AS DATE), day) IS NULL
            THEN coalesce(CAST($week AS DATE) < CAST($other_week AS DATE), TRUE)
        -- a folder named by calendar year can hold two ISO weeks: a row belongs to the nearer one, between them to the
        -- earlier
        ELSE
            abs(date_diff('day', CAST($week AS DATE), day) - 3)
            <= least(
                coalesce(
                    abs(date_diff('day', CAST($other_week AS DATE), day) - 3)
                    + 0.5 * sign(date_diff('day', CAST($week AS DATE), CAST($other_week AS DATE))),
                    1e15
                ),
                coalesce(
                    abs(date_diff('day', CAST($another_week AS DATE), day) - 3)
                    + 0.5 * sign(date_diff('day', CAST($week AS DATE), CAST($another_week AS DATE))),
                    1e15
                )
            )
    END
