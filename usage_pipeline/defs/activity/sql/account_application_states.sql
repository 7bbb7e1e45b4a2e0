-- grain: account x application that was ever subscribed or ever used: subscription and usage state on the day of as_of
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

-- the subscription period that runs on as_of, else the last one before it, else the first to come
told_periods AS (
    SELECT *
    FROM core.subscription_states
    WHERE application IS NOT NULL
    QUALIFY
        row_number() OVER (
            PARTITION BY account_id, application
            ORDER BY
                CASE
                    WHEN start_date <= CAST($as_of_day AS DATE) AND end_date >= CAST($as_of_day AS DATE) THEN 0
                    WHEN end_date < CAST($as_of_day AS DATE) THEN 1
                    ELSE 2
                END,
                CASE WHEN start_date <= CAST($as_of_day AS DATE) THEN -epoch(start_date) ELSE epoch(start_date) END
        ) = 1
),

subscription_periods AS (
    SELECT
        told_periods.*,
        numbered.account_application_id
    FROM told_periods
    INNER JOIN core.account_applications AS numbered
        ON told_periods.account_id = numbered.account_id AND told_periods.application = numbered.application
),

usage AS (
    SELECT
        weekly.account_id,
        weekly.application,
        max(weekly.last_day) FILTER (WHERE weekly.clicks > 0) AS last_used_ever,
        -- of the subscription period, by the same rule as `is_used` of the subscription weeks
        max(least(weekly.last_day, subscription_periods.end_date)) FILTER (
            WHERE weekly.clicks > 0
            AND weekly.last_day >= subscription_periods.start_date
            AND weekly.first_day <= subscription_periods.end_date
        ) AS last_used_in_period,
        max(weekly.last_day) FILTER (WHERE weekly.clicks > 0 AND weekly.last_day < subscription_periods.start_date)
            AS used_before_on,
        sum(weekly.clicks) AS clicks
    FROM core.weekly_usage AS weekly
    LEFT JOIN
        subscription_periods
        ON weekly.account_id = subscription_periods.account_id AND weekly.application = subscription_periods.application
    GROUP BY weekly.account_id, weekly.application
),

subscribed AS (
    SELECT
        account_application_id,
        sum(clicks) AS clicks
    FROM core.subscription_weeks
    GROUP BY account_application_id
),

partial_weeks AS (
    SELECT
        weeks.account_application_id,
        weeks.week_start,
        numbered.account_id,
        numbered.application,
        periods.start_date,
        periods.end_date
    FROM core.subscription_weeks AS weeks
    INNER JOIN core.account_applications AS numbered ON weeks.account_application_id = numbered.account_application_id
    INNER JOIN core.subscription_periods AS periods
        ON
            numbered.account_id = periods.account_id
            AND numbered.application = periods.application
            AND weeks.period_number = periods.period_number
    WHERE weeks.subscribed_days < 7
),

-- weeks in which an account used one application: its days are those of the account
alone AS (
    SELECT
        account_id,
        week_start
    FROM core.weekly_usage
    GROUP BY account_id, week_start
    HAVING count(*) = 1
),

-- of a week that is subscribed in part: clicks of its other days, else of those who came on other days alone
of_other_days AS (
    SELECT
        weeks.account_application_id,
        sum(days.clicks) AS clicks
    FROM partial_weeks AS weeks
    INNER JOIN alone ON weeks.account_id = alone.account_id AND weeks.week_start = alone.week_start
    INNER JOIN core.weekly_usage AS weekly
        ON
            weeks.account_id = weekly.account_id
            AND weeks.application = weekly.application
            AND weeks.week_start = weekly.week_start
    INNER JOIN core.account_days AS days
        ON
            weeks.account_id = days.account_id
            -- as an equation: a join by a range of days took a third of a minute for 3,000 accounts
            AND weeks.week_start = CAST(date_trunc('week', days.day) AS DATE)
    WHERE days.day < weeks.start_date OR days.day > weeks.end_date
    GROUP BY weeks.account_application_id
    UNION ALL
    SELECT
        weeks.account_application_id,
        sum(users.clicks) AS clicks
    FROM partial_weeks AS weeks
    ANTI JOIN alone ON weeks.account_id = alone.account_id AND weeks.week_start = alone.week_start
    INNER JOIN core.weekly_users AS users
        ON
            weeks.account_id = users.account_id
            AND weeks.application = users.application
            AND weeks.week_start = users.week_start
    WHERE users.last_day < weeks.start_date OR users.first_day > weeks.end_date
    GROUP BY weeks.account_application_id
),

beside AS (
    SELECT
        account_application_id,
        sum(clicks) AS clicks
    FROM of_other_days
    GROUP BY account_application_id
),

account_applications AS (
    SELECT
        account_id,
        application
    FROM subscription_periods
    UNION
    SELECT
        account_id,
        application
    FROM usage
),

newest_states AS (
    SELECT states.*
    FROM core.usage_states AS states
    INNER JOIN newest ON states.week_start = newest.week_start
),

-- how it was used before the end: the last 13 full subscribed weeks
before_end AS (
    SELECT
        subscription_weeks.account_application_id,
        avg(subscription_weeks.clicks) AS clicks_per_week
    FROM core.subscription_weeks AS subscription_weeks
    INNER JOIN
        subscription_periods
        ON
            subscription_weeks.account_application_id = subscription_periods.account_application_id
            AND subscription_weeks.period_number = subscription_periods.period_number
    WHERE
        subscription_weeks.is_complete
        AND subscription_weeks.subscribed_days = 7
        AND subscription_weeks.week_start > subscription_periods.end_date - 97
        AND subscription_periods.end_date < CAST($as_of_day AS DATE)
    GROUP BY subscription_weeks.account_application_id
),

-- the last weeks against as many before them, where both were whole weeks of one subscription
weekly AS (
    SELECT
        states.account_application_id,
        states.clicks,
        states.came_back,
        states.period_number = newest_states.period_number AS is_same_subscription,
        newest_states.weeks_without_use,
        newest_states.full_weeks - states.full_weeks AS weeks_ago
    FROM newest_states
    INNER JOIN core.usage_states AS states ON newest_states.account_application_id = states.account_application_id
),

trends AS (
    SELECT
        account_application_id,
        count(*) FILTER (WHERE is_same_subscription) AS weeks,
        avg(clicks) FILTER (WHERE is_same_subscription AND weeks_ago < 4) AS last_4,
        avg(clicks) FILTER (WHERE is_same_subscription AND weeks_ago BETWEEN 4 AND 7) AS before_4,
        avg(clicks) FILTER (WHERE is_same_subscription AND weeks_ago < 13) AS last_13,
        avg(clicks) FILTER (WHERE is_same_subscription AND weeks_ago BETWEEN 13 AND 25) AS before_13,
        avg(clicks) FILTER (WHERE is_same_subscription AND weeks_ago < 52) AS last_52,
        avg(clicks) FILTER (WHERE is_same_subscription AND weeks_ago BETWEEN 52 AND 103) AS before_52,
        -- the quarter that ended with the last week of use
        avg(clicks) FILTER (WHERE weeks_ago BETWEEN weeks_without_use AND weeks_without_use + 12)
            AS clicks_when_last_used,
        bool_or(came_back) FILTER (WHERE weeks_ago < 8) AS came_back
    FROM weekly
    GROUP BY account_application_id
),

placed AS (
    SELECT
        subscription_periods.account_application_id,
        account_applications.account_id,
        account_applications.application,
        subscription_periods.period_number,
        subscription_periods.basis,
        subscription_periods.start_date,
        nullif(subscription_periods.end_date, DATE '9999-12-31') AS end_date,
        subscription_periods.notice_date,
        subscription_periods.end_reason,
        subscription_periods.ended_with,
        -- a renewal that has passed is none that comes, and what leaves before it takes no part in it
        CASE
            WHEN
                subscription_periods.renewal_date >= CAST($as_of_day AS DATE)
                AND subscription_periods.subscription_state NOT IN ('ended', 'never started')
                AND NOT (
                    subscription_periods.subscription_state = 'notice received'
                    AND subscription_periods.end_date < subscription_periods.renewal_date
                )
                THEN subscription_periods.renewal_date
        END AS renewal_date,
        subscription_periods.seats,
        subscription_periods.annual_value,
        usage.last_used_ever,
        usage.last_used_in_period,
        usage.used_before_on,
        coalesce(usage.clicks, 0) - coalesce(subscribed.clicks, 0) + coalesce(beside.clicks, 0)
            AS clicks_outside_subscription,
        before_end.clicks_per_week AS clicks_per_week_before_end,
        coalesce(subscription_periods.subscription_state, 'no subscription') AS subscription_state
    FROM account_applications
    LEFT JOIN
        subscription_periods
        ON
            account_applications.account_id = subscription_periods.account_id
            AND account_applications.application = subscription_periods.application
    LEFT JOIN
        usage
        ON account_applications.account_id = usage.account_id AND account_applications.application = usage.application
    LEFT JOIN subscribed ON subscription_periods.account_application_id = subscribed.account_application_id
    LEFT JOIN beside ON subscription_periods.account_application_id = beside.account_application_id
    LEFT JOIN before_end ON subscription_periods.account_application_id = before_end.account_application_id
),

judged AS (
    SELECT
        placed.* EXCLUDE (last_used_in_period, used_before_on),
        placed.subscription_state IN ('active subscription', 'notice received') AS is_running,
        -- beside a state stands the use that it is about; use before the subscription is told in words
        CASE WHEN is_running THEN placed.last_used_in_period ELSE placed.last_used_ever END AS last_used_on,
        CASE WHEN is_running THEN placed.used_before_on END AS used_before_on,
        -- an ended account x application has no usage state: it can be neither low nor inactive
        CASE WHEN is_running THEN coalesce(states.usage_state, 'new') END AS state_of_newest_week,
        -- that nobody came is known of complete weeks alone; that somebody came is known at once
        coalesce(
            is_running
            AND states.usage_state IN ('never adopted', 'inactive')
            AND placed.last_used_in_period > newest.week_start + 6,
            FALSE
        ) AS is_used_since
    FROM placed
    CROSS JOIN newest
    LEFT JOIN newest_states AS states
        ON placed.account_application_id = states.account_application_id AND placed.period_number = states.period_number
)

SELECT
    placed.* EXCLUDE (is_running),
    coalesce(placed.period_number >= 2, FALSE) AS has_returned,
    CASE WHEN placed.is_used_since THEN 'active' ELSE placed.state_of_newest_week END AS usage_state,
    CASE
        WHEN NOT placed.is_running THEN NULL
        WHEN placed.is_used_since THEN newest.week_start + 7
        -- silence began the week after the last use, not when it had lasted long enough to be called inactive
        WHEN states.usage_state = 'inactive' THEN states.last_used_week + 7
        ELSE coalesce(states.state_since, placed.start_date)
    END AS usage_state_since,
    states.recent_clicks,
    states.usual_clicks,
    CASE WHEN states.last_used_week IS NOT NULL THEN trends.clicks_when_last_used END AS clicks_when_last_used,
    states.weeks_without_use,
    coalesce(trends.came_back, FALSE) AS came_back,
    -- no percentage of next to nothing
    CASE
        WHEN trends.weeks >= 8 AND trends.before_4 >= $low_floor_clicks
            THEN trends.last_4 / trends.before_4 - 1
    END AS trend_4_weeks,
    CASE
        WHEN trends.weeks >= 26 AND trends.before_13 >= $low_floor_clicks
            THEN trends.last_13 / trends.before_13 - 1
    END AS trend_13_weeks,
    CASE
        WHEN trends.weeks >= 104 AND trends.before_52 >= $low_floor_clicks
            THEN trends.last_52 / trends.before_52 - 1
    END AS trend_52_weeks,
    CASE
        WHEN states.week_start IS NOT NULL AND states.recent_clicks > 0
            THEN
                rank() OVER (
                    PARTITION BY placed.application, states.week_start IS NOT NULL ORDER BY states.recent_clicks DESC
                )
    END AS rank_in_application
FROM judged AS placed
CROSS JOIN newest
LEFT JOIN newest_states AS states
    -- an ended account x application is judged no more, nor one by what was before the subscription that runs
    ON
        CASE WHEN placed.is_running THEN placed.account_application_id END = states.account_application_id
        AND placed.period_number = states.period_number
LEFT JOIN trends ON states.account_application_id = trends.account_application_id
