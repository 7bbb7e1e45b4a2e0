-- grain: account x application x week: subscribed (zero where nobody came), used outside it, or used a year ago
WITH subscription_weeks AS (
    SELECT
        subscription_weeks.*,
        account_applications.account_id,
        account_applications.application,
        expected.clicks_before,
        expected.variance_clicks,
        expected.common_spread
    FROM core.subscription_weeks AS subscription_weeks
    INNER JOIN
        core.account_applications AS account_applications
        ON subscription_weeks.account_application_id = account_applications.account_application_id
    LEFT JOIN core.expected_usage AS expected
        ON
            subscription_weeks.account_application_id = expected.account_application_id
            AND subscription_weeks.week_start = expected.week_start
),

spine AS (
    SELECT
        week_start,
        account_id,
        application
    FROM subscription_weeks
    UNION
    SELECT
        week_start,
        account_id,
        application
    FROM core.weekly_usage
    UNION
    SELECT
        weeks.week_start,
        last_year.account_id,
        last_year.application
    FROM core.weekly_usage AS last_year
    INNER JOIN core.weeks AS weeks ON last_year.week_start = weeks.last_year_week
)

SELECT
    CAST(spine.week_start AS TIMESTAMP) AS week_start,
    spine.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    CAST(coalesce(subscription_weeks.subscribed_days, 0) AS INTEGER) AS subscribed_days,
    CASE WHEN subscription_weeks.account_id IS NOT NULL THEN subscription_weeks.clicks ELSE usage.clicks END AS clicks,
    CASE
        WHEN subscription_weeks.account_id IS NOT NULL THEN subscription_weeks.records_created ELSE
            usage.records_created
    END AS records_created,
    CASE
        WHEN subscription_weeks.account_id IS NOT NULL THEN subscription_weeks.active_users ELSE usage.active_users
    END AS active_users,
    CASE WHEN last_week.has_arrived THEN coalesce(last_year.clicks, 0) END AS clicks_last_year,
    CASE WHEN last_week.has_arrived AND $has_records THEN coalesce(last_year.records_created, 0) END
        AS records_last_year,
    -- what is too new to be judged, or used outside a subscription, is expected as it came: the sums stay comparable
    CASE
        WHEN weeks.is_complete
            THEN
                coalesce(
                    subscription_weeks.clicks_before,
                    CASE WHEN subscription_weeks.account_id IS NULL THEN usage.clicks ELSE subscription_weeks.clicks END
                )
    END AS expected_clicks,
    CASE WHEN weeks.is_complete THEN coalesce(subscription_weeks.variance_clicks, 0) END AS variance_clicks,
    subscription_weeks.common_spread,
    weeks.is_complete,
    weeks.is_running,
    weeks.week_status,
    account_application_anomalies.kind AS anomaly,
    application_anomalies.kind AS application_anomaly,
    platform_anomalies.kind AS platform_anomaly
FROM spine
INNER JOIN core.weeks AS weeks ON spine.week_start = weeks.week_start
INNER JOIN core.account_names AS names ON spine.account_id = names.account_id
INNER JOIN core.application_names AS applications ON spine.application = applications.application_key
LEFT JOIN subscription_weeks
    ON
        spine.week_start = subscription_weeks.week_start
        AND spine.account_id = subscription_weeks.account_id
        AND spine.application = subscription_weeks.application
LEFT JOIN core.weekly_usage AS usage
    ON
        spine.week_start = usage.week_start
        AND spine.account_id = usage.account_id
        AND spine.application = usage.application
LEFT JOIN core.weeks AS last_week ON weeks.last_year_week = last_week.week_start
LEFT JOIN core.weekly_usage AS last_year
    ON
        weeks.last_year_week = last_year.week_start
        AND spine.account_id = last_year.account_id
        AND spine.application = last_year.application
LEFT JOIN core.anomalies AS account_application_anomalies
    ON
        account_application_anomalies.scope = 'account'
        AND account_application_anomalies.measure = 'clicks'
        AND spine.week_start = account_application_anomalies.week_start
        AND spine.account_id = account_application_anomalies.account_id
        AND spine.application = account_application_anomalies.application
LEFT JOIN core.anomalies AS application_anomalies
    ON
        application_anomalies.scope = 'application'
        AND application_anomalies.measure = 'clicks'
        AND spine.week_start = application_anomalies.week_start
        AND spine.application = application_anomalies.application
LEFT JOIN core.anomalies AS platform_anomalies
    ON
        platform_anomalies.scope = 'all'
        AND platform_anomalies.measure = 'clicks'
        AND spine.week_start = platform_anomalies.week_start
ORDER BY spine.week_start
