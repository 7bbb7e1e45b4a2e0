-- grain: an account: its subscription as a whole, its applications by state, and its users
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

account_applications AS (
    SELECT
        account_id,
        count(*) FILTER (WHERE subscription_state IN ('active subscription', 'notice received')) AS applications_owned,
        count(*) FILTER (WHERE usage_state IN ('active', 'low', 'new') AND recent_clicks > 0) AS applications_used,
        count(*) FILTER (WHERE usage_state = 'never adopted') AS applications_never_used,
        count(*) FILTER (WHERE usage_state = 'low') AS applications_low,
        count(*) FILTER (WHERE usage_state = 'inactive') AS applications_inactive,
        count(*) FILTER (WHERE subscription_state = 'notice received') AS applications_notice,
        count(*) FILTER (WHERE subscription_state = 'ended') AS applications_ended,
        sum(recent_clicks) AS recent_clicks,
        sum(seats) FILTER (WHERE subscription_state IN ('active subscription', 'notice received')) AS seats,
        sum(annual_value) FILTER (WHERE subscription_state IN ('active subscription', 'notice received'))
            AS annual_value,
        min(renewal_date) FILTER (WHERE subscription_state IN ('active subscription', 'notice received'))
            AS renewal_date,
        max(last_used_ever) AS last_used_on
    FROM core.account_application_states
    GROUP BY account_id
),

-- use up to the last day of the subscription, and after it
around_end AS (
    SELECT
        subscriptions.account_id,
        max(days.day) FILTER (WHERE days.day <= subscriptions.end_date) AS last_used_before,
        coalesce(sum(days.clicks) FILTER (WHERE days.day > subscriptions.end_date), 0) AS clicks_after
    FROM core.account_subscriptions AS subscriptions
    INNER JOIN core.account_days AS days ON subscriptions.account_id = days.account_id
    WHERE subscriptions.subscription_state IN ('ended', 'never started') AND days.clicks > 0
    GROUP BY subscriptions.account_id
),

-- subscriptions about applications and subscriptions about the whole account together
totals AS (
    SELECT
        subscriptions.account_id,
        CASE
            WHEN account_applications.seats IS NOT NULL OR subscriptions.seats IS NOT NULL
                THEN CAST(coalesce(account_applications.seats, 0) + coalesce(subscriptions.seats, 0) AS BIGINT)
        END AS seats,
        CASE
            WHEN account_applications.annual_value IS NOT NULL OR subscriptions.annual_value IS NOT NULL
                THEN round(coalesce(account_applications.annual_value, 0) + coalesce(subscriptions.annual_value, 0), 2)
        END AS annual_value,
        least(account_applications.renewal_date, subscriptions.renewal_date) AS renewal_date
    FROM core.account_subscriptions AS subscriptions
    LEFT JOIN account_applications ON subscriptions.account_id = account_applications.account_id
),

users AS (
    SELECT
        user_weeks.account_id,
        count(DISTINCT user_weeks.user_id) AS active_users
    FROM core.weekly_users AS user_weeks
    CROSS JOIN newest
    INNER JOIN core.weeks AS weeks ON user_weeks.week_start = weeks.week_start AND weeks.is_complete
    WHERE user_weeks.week_start > newest.week_start - 28
    GROUP BY user_weeks.account_id
)

SELECT
    names.account_id,
    names.account,
    names.segment,
    names.region,
    names.country,
    names.state,
    names.owner,
    subscriptions.subscription_state,
    subscriptions.is_subscription_known,
    CAST(subscriptions.start_date AS TIMESTAMP) AS start_date,
    CAST(subscriptions.notice_date AS TIMESTAMP) AS notice_date,
    CAST(subscriptions.end_date AS TIMESTAMP) AS end_date,
    subscriptions.end_reason,
    coalesce(account_applications.applications_owned, 0) AS applications_owned,
    coalesce(account_applications.applications_used, 0) AS applications_used,
    coalesce(account_applications.applications_never_used, 0) AS applications_never_used,
    coalesce(account_applications.applications_low, 0) AS applications_low,
    coalesce(account_applications.applications_inactive, 0) AS applications_inactive,
    CASE WHEN $has_ends THEN coalesce(account_applications.applications_ended, 0) END AS applications_ended,
    CASE WHEN $has_notices THEN coalesce(account_applications.applications_notice, 0) END AS applications_notice,
    CASE WHEN $has_users THEN coalesce(users.active_users, 0) END AS active_users,
    account_applications.applications_used / nullif(account_applications.applications_owned, 0) AS breadth,
    CASE WHEN $has_users THEN account_applications.recent_clicks / nullif(users.active_users, 0) END AS depth,
    totals.seats,
    totals.annual_value,
    CAST(totals.renewal_date AS TIMESTAMP) AS renewal_date,
    totals.renewal_date - CAST($as_of_day AS DATE) AS days_to_renewal,
    CAST(account_applications.last_used_on AS TIMESTAMP) AS last_used_on,
    subscriptions.end_date - around_end.last_used_before AS days_silent_before_end,
    CASE
        WHEN subscriptions.subscription_state NOT IN ('ended', 'never started') OR NOT $has_days THEN NULL
        WHEN around_end.last_used_before IS NULL THEN $text__ended__never_adopted
        WHEN subscriptions.end_date = around_end.last_used_before THEN $text__ended__used_until_last_day
        WHEN subscriptions.end_date = around_end.last_used_before + 1 THEN $text__ended__used_until_day_before
        ELSE format($text__ended__last_used, subscriptions.end_date - around_end.last_used_before)
    END
    || CASE
        WHEN around_end.clicks_after > 0
            THEN format($text__ended__clicks_after, CAST(around_end.clicks_after AS VARCHAR))
        ELSE ''
    END AS use_before_end,
    names.is_in_reference,
    names.contacts,
    trends.usage_trend
FROM core.account_names AS names
INNER JOIN core.account_subscriptions AS subscriptions ON names.account_id = subscriptions.account_id
INNER JOIN totals ON names.account_id = totals.account_id
LEFT JOIN account_applications ON names.account_id = account_applications.account_id
LEFT JOIN around_end ON names.account_id = around_end.account_id
LEFT JOIN users ON names.account_id = users.account_id
LEFT JOIN core.usage_trends AS trends
    ON names.account_id = trends.account_id AND trends.application_key = 'all'
ORDER BY names.account
