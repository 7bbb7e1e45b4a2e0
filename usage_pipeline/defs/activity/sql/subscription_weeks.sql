-- grain: account x application x week with a subscribed day: zero where nobody came, NULL where that is not known
WITH weeks_of_period AS (
    SELECT
        account_applications.account_application_id,
        weeks.week_start,
        subscription_periods.period_number,
        greatest(subscription_periods.start_date, weeks.week_start) AS first_subscribed_day,
        least(subscription_periods.end_date, weeks.week_start + 6) AS last_subscribed_day,
        -- never below 1 in what is joined; the planner may count before it joins
        CAST(greatest(last_subscribed_day - first_subscribed_day + 1, 0) AS TINYINT) AS subscribed_days,
        CAST(
            CASE
                WHEN subscription_periods.end_date < weeks.week_start + 6 THEN 'ended'
                WHEN subscription_periods.notice_date <= weeks.week_start + 6 THEN 'notice received'
                ELSE 'active subscription'
            END AS ENUM('active subscription', 'notice received', 'ended')
        ) AS subscription_state,
        weeks.is_complete
    FROM core.subscription_periods AS subscription_periods
    INNER JOIN core.account_applications AS account_applications
        ON
            subscription_periods.account_id = account_applications.account_id
            AND subscription_periods.application = account_applications.application
    INNER JOIN core.weeks AS weeks
        ON subscription_periods.start_date <= weeks.week_start + 6 AND subscription_periods.end_date >= weeks.week_start
),

usage AS (
    SELECT
        account_applications.account_application_id,
        weekly.week_start,
        weekly.clicks,
        weekly.records_created,
        weekly.active_users,
        weekly.first_day,
        weekly.last_day
    FROM core.weekly_usage AS weekly
    INNER JOIN
        core.account_applications AS account_applications
        ON weekly.account_id = account_applications.account_id AND weekly.application = account_applications.application
)

SELECT
    weeks_of_period.* EXCLUDE (first_subscribed_day, last_subscribed_day),
    -- in a week that is not complete, what came is known, and that nobody came is not
    CASE WHEN weeks_of_period.is_complete THEN coalesce(usage.clicks, 0) ELSE usage.clicks END AS clicks,
    CASE
        WHEN weeks_of_period.is_complete AND $has_records THEN coalesce(usage.records_created, 0)
        ELSE usage.records_created
    END AS records_created,
    CASE
        WHEN weeks_of_period.is_complete AND $has_users THEN coalesce(usage.active_users, 0)
        ELSE usage.active_users
    END AS active_users,
    -- on a subscribed day, whatever of the week is known: what was used before it began makes no use of this one
    coalesce(
        usage.clicks > 0
        AND usage.last_day >= weeks_of_period.first_subscribed_day
        AND usage.first_day <= weeks_of_period.last_subscribed_day,
        FALSE
    ) AS is_used
FROM weeks_of_period
LEFT JOIN
    usage
    ON
        weeks_of_period.account_application_id = usage.account_application_id
        AND weeks_of_period.week_start = usage.week_start
ORDER BY weeks_of_period.account_application_id, weeks_of_period.week_start
