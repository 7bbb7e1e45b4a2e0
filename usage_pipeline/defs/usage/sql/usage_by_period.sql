-- grain: account x application x period of complete weeks: usage while subscribed, users counted once, rank
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

periods (period, weeks) AS (
    VALUES ('Last 4 weeks', 4), ('Last 13 weeks', 13), ('Last 52 weeks', 52), ('Last 104 weeks', 104)
),

period_weeks AS (
    SELECT
        periods.period,
        periods.weeks,
        weeks.week_start
    FROM periods
    CROSS JOIN newest
    INNER JOIN core.weeks AS weeks
        ON
            weeks.is_complete
            AND weeks.week_start > newest.week_start - 7 * periods.weeks
            AND newest.week_start >= weeks.week_start
),

judged AS (
    -- ranks know only weeks of seven subscribed days
    SELECT
        period_weeks.period,
        any_value(period_weeks.weeks) AS period_length,
        subscription_weeks.account_application_id,
        count(*) AS weeks_subscribed,
        count(*) FILTER (WHERE subscription_weeks.clicks > 0) AS weeks_used,
        sum(subscription_weeks.clicks) AS clicks,
        sum(subscription_weeks.records_created) AS records_created
    FROM period_weeks
    INNER JOIN core.subscription_weeks AS subscription_weeks ON period_weeks.week_start = subscription_weeks.week_start
    WHERE subscription_weeks.subscribed_days = 7
    GROUP BY period_weeks.period, subscription_weeks.account_application_id
),

account_application_users AS (
    SELECT
        period_weeks.period,
        users.account_id,
        users.application,
        count(DISTINCT users.user_id) AS active_users
    FROM period_weeks
    INNER JOIN core.weekly_users AS users ON period_weeks.week_start = users.week_start
    GROUP BY period_weeks.period, users.account_id, users.application
),

account_users AS (
    SELECT
        period_weeks.period,
        users.account_id,
        count(DISTINCT users.user_id) AS active_users
    FROM period_weeks
    INNER JOIN core.weekly_users AS users ON period_weeks.week_start = users.week_start
    GROUP BY period_weeks.period, users.account_id
),

rankable AS (
    SELECT
        judged.*,
        account_applications.account_id,
        account_applications.application,
        judged.clicks / judged.weeks_subscribed AS clicks_per_week,
        account_applications.subscription_state IN ('active subscription', 'notice received') AS is_subscribed,
        judged.clicks >= $rank_floor_clicks
        AND account_applications.subscription_state IN ('active subscription', 'notice received') AS is_ranked
    FROM judged
    INNER JOIN
        core.account_application_states AS account_applications
        ON judged.account_application_id = account_applications.account_application_id
)

SELECT
    rankable.period,
    rankable.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    rankable.is_subscribed,
    rankable.weeks_subscribed,
    rankable.weeks_used,
    CAST(rankable.clicks AS BIGINT) AS clicks,
    CAST(rankable.records_created AS BIGINT) AS records_created,
    rankable.clicks_per_week,
    CASE WHEN $has_users THEN coalesce(account_application_users.active_users, 0) END AS active_users,
    CASE WHEN $has_users THEN coalesce(account_users.active_users, 0) END AS account_active_users,
    rankable.clicks > 0 AS is_used,
    rankable.is_ranked,
    -- by clicks a week, so that an account x application that began in mid-period is not last for that
    CASE
        WHEN rankable.is_ranked
            THEN
                rank() OVER (
                    PARTITION BY rankable.period, rankable.application, rankable.is_ranked
                    ORDER BY rankable.clicks_per_week DESC
                )
    END AS rank_in_application
FROM rankable
INNER JOIN core.account_names AS names ON rankable.account_id = names.account_id
INNER JOIN core.application_names AS applications ON rankable.application = applications.application_key
LEFT JOIN account_application_users
    ON
        rankable.period = account_application_users.period
        AND rankable.account_id = account_application_users.account_id
        AND rankable.application = account_application_users.application
LEFT JOIN account_users
    ON rankable.period = account_users.period AND rankable.account_id = account_users.account_id
ORDER BY rankable.period, applications.application, rankable.clicks DESC
