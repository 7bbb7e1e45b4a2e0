-- grain: account x application that was ever subscribed or ever used: both states, how long, and the reason in words
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

history AS (
    SELECT min(week_start) AS first_week FROM core.weeks
    WHERE has_arrived
)

SELECT
    account_applications.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    account_applications.subscription_state,
    account_applications.basis != 'application' AS is_inferred,
    account_applications.period_number,
    account_applications.has_returned,
    CAST(account_applications.start_date AS TIMESTAMP) AS start_date,
    CAST(account_applications.notice_date AS TIMESTAMP) AS notice_date,
    CAST(account_applications.end_date AS TIMESTAMP) AS end_date,
    CASE
        WHEN account_applications.end_date >= CAST($as_of_day AS DATE)
            THEN account_applications.end_date - CAST($as_of_day AS DATE)
    END AS days_to_end,
    CAST(account_applications.renewal_date AS TIMESTAMP) AS renewal_date,
    account_applications.renewal_date - CAST($as_of_day AS DATE) AS days_to_renewal,
    account_applications.seats,
    -- what ended brings nothing any more
    CASE
        WHEN
            account_applications.subscription_state NOT IN ('ended', 'never started')
            THEN account_applications.annual_value
    END AS annual_value,
    account_applications.usage_state,
    CAST(account_applications.usage_state_since AS TIMESTAMP) AS usage_state_since,
    CAST((newest.week_start - account_applications.usage_state_since) / 7 + 1 AS INTEGER) AS weeks_in_state,
    CAST(account_applications.last_used_on AS TIMESTAMP) AS last_used_on,
    account_applications.recent_clicks,
    account_applications.usual_clicks,
    account_applications.trend_4_weeks,
    account_applications.trend_13_weeks,
    account_applications.trend_52_weeks,
    account_applications.rank_in_application,
    account_applications.came_back,
    CAST(account_applications.clicks_outside_subscription AS BIGINT) AS clicks_outside_subscription,
    CASE account_applications.usage_state
        WHEN 'never adopted'
            THEN
                CASE
                    WHEN account_applications.start_date < history.first_week
                        THEN
                            format($text__state__no_use_since_first_week, strftime(history.first_week, $date_format))
                    ELSE
                        format(
                            $text__state__no_use_since_start, strftime(account_applications.start_date, $date_format)
                        )
                END
                || coalesce(
                    format(
                        $text__state__used_before_start, strftime(account_applications.used_before_on, $date_format)
                    ),
                    ''
                )
        WHEN 'inactive'
            THEN
                format($text__state__no_use_for, account_applications.weeks_without_use)
                || CASE
                    WHEN account_applications.clicks_when_last_used > 0
                        THEN
                            format(
                                $text__state__usually_before,
                                CASE
                                    WHEN
                                        account_applications.clicks_when_last_used >= 10
                                        THEN CAST(round(account_applications.clicks_when_last_used)::INTEGER AS VARCHAR)
                                    -- as text each: one type for both would write 79 as 79.0
                                    ELSE
                                        translate(
                                            format('{:.1f}', account_applications.clicks_when_last_used),
                                            ',.',
                                            $separators
                                        )
                                END
                            )
                    ELSE ''
                END
        WHEN 'low'
            THEN
                format(
                    $text__state__lately,
                    translate(format('{:.1f}', account_applications.recent_clicks), ',.', $separators),
                    round(account_applications.usual_clicks)::INTEGER
                )
        WHEN 'new'
            THEN format($text__state__subscribed_since, strftime(account_applications.start_date, $date_format))
        WHEN 'active'
            THEN
                CASE
                    WHEN
                        account_applications.is_used_since
                        AND account_applications.state_of_newest_week = 'never adopted'
                        THEN
                            format(
                                $text__state__used_first, strftime(account_applications.last_used_on, $date_format)
                            )
                    WHEN account_applications.is_used_since
                        THEN
                            format(
                                $text__state__used_again,
                                strftime(account_applications.last_used_on, $date_format),
                                account_applications.weeks_without_use
                            )
                    WHEN account_applications.came_back THEN $text__state__came_back
                    ELSE ''
                END
    END AS reason,
    trends.usage_trend
FROM core.account_application_states AS account_applications
CROSS JOIN newest
CROSS JOIN history
INNER JOIN core.account_names AS names ON account_applications.account_id = names.account_id
INNER JOIN core.application_names AS applications ON account_applications.application = applications.application_key
LEFT JOIN core.usage_trends AS trends
    ON
        account_applications.account_id = trends.account_id
        AND account_applications.application = trends.application_key
ORDER BY names.account, applications.application
