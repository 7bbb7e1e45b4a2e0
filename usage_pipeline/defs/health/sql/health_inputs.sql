-- grain: as-of week x account x application (none: of the whole account) subscribed on its Sunday: its use
WITH newest AS (
    SELECT
        max(week_start) AS week_start,
        min(week_start) AS first_week
    FROM core.weeks
    WHERE is_complete
),

quarters AS (
    SELECT CAST(unnest(range(0, $health_quarters + 1)) AS INTEGER) AS ago
),

-- the newest complete week, and those a quarter apart before it that have weeks enough behind them
as_of_weeks AS (
    SELECT CAST(newest.week_start - 91 * quarters.ago AS DATE) AS as_of_week
    FROM newest
    CROSS JOIN quarters
    WHERE quarters.ago = 0 OR newest.week_start - 91 * quarters.ago >= newest.first_week + 7 * 26
),

in_force AS (
    SELECT
        as_of_weeks.as_of_week,
        subscriptions.account_id,
        subscriptions.application,
        subscriptions.basis,
        subscriptions.period_number,
        subscriptions.start_date,
        numbered.account_application_id,
        terms.seats,
        coalesce(subscriptions.notice_date <= as_of_weeks.as_of_week + 6, FALSE)
        -- health of now knows what is known now; of a cancellation nobody knows since when it was known
        OR (
            as_of_weeks.as_of_week = newest.week_start
            AND (subscriptions.is_cancelled OR coalesce(subscriptions.notice_date <= CAST($as_of_day AS DATE), FALSE))
        ) AS has_notice
    FROM as_of_weeks
    CROSS JOIN newest
    INNER JOIN core.subscription_states AS subscriptions
        ON
            subscriptions.application IS NOT NULL
            AND subscriptions.start_date <= as_of_weeks.as_of_week + 6
            AND subscriptions.end_date > as_of_weeks.as_of_week + 6
    INNER JOIN core.account_applications AS numbered
        ON
            subscriptions.account_id = numbered.account_id
            AND subscriptions.application = numbered.application
    LEFT JOIN core.subscription_terms AS terms
        ON
            subscriptions.account_id = terms.account_id
            AND subscriptions.application = terms.application
            AND as_of_weeks.as_of_week + 6 BETWEEN terms.start_date AND terms.end_date
),

trends AS (
    SELECT
        in_force.as_of_week,
        in_force.account_application_id,
        sum(states.clicks) FILTER (WHERE states.week_start > in_force.as_of_week - 91) AS clicks_13_weeks,
        sum(states.clicks) FILTER (WHERE states.week_start <= in_force.as_of_week - 91) AS clicks_13_weeks_before,
        count(*) AS weeks
    FROM in_force
    INNER JOIN core.usage_states AS states
        ON
            in_force.account_application_id = states.account_application_id
            AND in_force.period_number = states.period_number
            AND in_force.as_of_week - 182 < states.week_start
            AND in_force.as_of_week >= states.week_start
    GROUP BY in_force.as_of_week, in_force.account_application_id
),

-- users of blocks of four weeks back from the as-of week: 0 is now, 1 to 3 are what now is compared with; rows without
-- a user are one that is NULL
users_of_blocks AS (
    SELECT
        in_force.as_of_week,
        in_force.account_id,
        in_force.application,
        in_force.seats IS NULL AS has_no_seats,
        weekly.user_id,
        CAST((in_force.as_of_week - weekly.week_start) // 28 AS INTEGER) AS block,
        sum(weekly.clicks) AS clicks
    FROM in_force
    INNER JOIN core.weekly_users AS weekly
        ON
            in_force.account_id = weekly.account_id
            AND in_force.application = weekly.application
            AND in_force.as_of_week - 112 < weekly.week_start
            AND in_force.as_of_week >= weekly.week_start
            -- who came before it began, in the week of its start or years ago, is no user of it
            AND in_force.start_date <= weekly.last_day
    INNER JOIN core.weeks AS weeks ON weekly.week_start = weeks.week_start AND weeks.is_complete
    WHERE weekly.clicks > 0
    GROUP BY ALL
),

users_of_accounts AS (
    SELECT
        as_of_week,
        account_id,
        CAST(NULL AS VARCHAR) AS application,
        bool_or(has_no_seats) AS has_no_seats,
        user_id,
        block,
        sum(clicks) AS clicks
    FROM users_of_blocks
    GROUP BY as_of_week, account_id, user_id, block
),

users_of_both AS (
    SELECT * FROM users_of_blocks
    UNION ALL
    SELECT * FROM users_of_accounts
),

-- of the blocks before, those that it covers whole; of an account, its first application in force
subscribed_blocks AS (
    SELECT
        as_of_week,
        account_id,
        application,
        least(3, (as_of_week - 21 - min(start_date)) // 28) AS blocks
    FROM in_force
    GROUP BY GROUPING SETS ((as_of_week, account_id, application), (as_of_week, account_id))
),

users AS (
    SELECT
        subscribed.as_of_week,
        subscribed.account_id,
        subscribed.application,
        -- of use before, none with a user: who comes is not known. The newest weeks do not decide it, since what is
        -- not known leaves the weights, and health must not improve by their use being taken away
        count(users.user_id) FILTER (WHERE users.block > 0) > 0 OR count(*) FILTER (WHERE users.block > 0) = 0
            AS are_users_known,
        count(users.user_id) FILTER (WHERE users.block = 0) AS active_users,
        count(users.user_id) FILTER (WHERE users.block = 0 AND users.has_no_seats) AS users_without_own_seats,
        CASE
            WHEN subscribed.blocks >= 1
                THEN count(users.user_id) FILTER (WHERE users.block BETWEEN 1 AND subscribed.blocks) / subscribed.blocks
        END AS usual_users,
        coalesce(
            -- of a row without a user nobody says that they are the most active one
            sum(users.clicks) FILTER (WHERE users.block = 0)
            - coalesce(max(users.clicks) FILTER (WHERE users.block = 0 AND users.user_id IS NOT NULL), 0),
            0
        ) / 4 AS clicks_of_others
    FROM subscribed_blocks AS subscribed
    LEFT JOIN users_of_both AS users
        ON
            subscribed.as_of_week = users.as_of_week
            AND subscribed.account_id = users.account_id
            AND subscribed.application IS NOT DISTINCT FROM users.application
    GROUP BY subscribed.as_of_week, subscribed.account_id, subscribed.application, subscribed.blocks
),

of_applications AS (
    SELECT
        in_force.as_of_week,
        in_force.account_id,
        in_force.application,
        in_force.basis,
        in_force.has_notice,
        in_force.seats,
        -- a new application that nobody has opened yet says nothing
        coalesce(CAST(states.usage_state AS VARCHAR), 'new') AS usage_state,
        coalesce(usage_state = 'new' AND coalesce(states.recent_clicks, 0) = 0, FALSE) AS is_unopened,
        CASE WHEN states.usual_clicks >= $low_floor_clicks THEN states.recent_clicks END AS recent_clicks,
        CASE WHEN states.usual_clicks >= $low_floor_clicks THEN states.usual_clicks END AS usual_clicks,
        coalesce(states.recent_clicks > 0, FALSE) AS is_active,
        CASE WHEN usage_state = 'never adopted' THEN $inactive_weeks ELSE states.weeks_without_use END
            AS weeks_without_use,
        CASE WHEN trends.weeks = 26 THEN trends.clicks_13_weeks END AS clicks_13_weeks,
        CASE WHEN trends.weeks = 26 THEN trends.clicks_13_weeks_before END AS clicks_13_weeks_before
    FROM in_force
    LEFT JOIN core.usage_states AS states
        ON
            in_force.account_application_id = states.account_application_id
            AND in_force.period_number = states.period_number
            AND in_force.as_of_week = states.week_start
    LEFT JOIN trends
        ON
            in_force.account_application_id = trends.account_application_id
            AND in_force.as_of_week = trends.as_of_week
),

-- seats of subscriptions about the whole account
account_seats AS (
    SELECT
        as_of_weeks.as_of_week,
        subscriptions.account_id,
        sum(subscriptions.seats) AS seats
    FROM as_of_weeks
    INNER JOIN ref.subscriptions AS subscriptions
        ON
            subscriptions.start_date <= as_of_weeks.as_of_week + 6
            AND coalesce(subscriptions.end_date, DATE '9999-12-31') > as_of_weeks.as_of_week + 6
    WHERE subscriptions.application IS NULL
    GROUP BY as_of_weeks.as_of_week, subscriptions.account_id
),

with_users AS (
    SELECT
        of_applications.*,
        users.are_users_known,
        CASE WHEN $has_users THEN users.active_users END AS active_users,
        CASE WHEN $has_users THEN users.usual_users END AS usual_users,
        CASE WHEN $has_users THEN users.clicks_of_others END AS clicks_of_others
    FROM of_applications
    INNER JOIN users
        ON
            of_applications.as_of_week = users.as_of_week
            AND of_applications.account_id = users.account_id
            AND of_applications.application = users.application
),

of_accounts AS (
    SELECT
        with_users.as_of_week,
        with_users.account_id,
        CAST(NULL AS VARCHAR) AS application,
        max(with_users.basis) AS basis,
        bool_and(with_users.has_notice) AS has_notice,
        bool_and(with_users.is_unopened) AS is_unopened,
        sum(with_users.recent_clicks) AS recent_clicks,
        sum(with_users.usual_clicks) AS usual_clicks,
        min(with_users.weeks_without_use) FILTER (WHERE NOT with_users.is_unopened) AS weeks_without_use,
        sum(with_users.clicks_13_weeks) AS clicks_13_weeks,
        sum(with_users.clicks_13_weeks_before) AS clicks_13_weeks_before,
        count(*) FILTER (WHERE NOT with_users.is_unopened AND with_users.is_active) AS active_applications,
        count(*) FILTER (WHERE NOT with_users.is_unopened) AS applications,
        bool_or(NOT with_users.are_users_known AND with_users.seats > 0) AS has_seats_of_unknown,
        bool_or(NOT with_users.are_users_known AND with_users.seats IS NULL) AS has_unknown_without_seats,
        sum(CASE WHEN $has_users AND with_users.seats > 0 THEN least(with_users.active_users, with_users.seats) END)
            AS seats_used,
        sum(with_users.seats) FILTER (WHERE with_users.seats > 0) AS seats
    FROM with_users
    GROUP BY with_users.as_of_week, with_users.account_id
)

SELECT
    as_of_week,
    account_id,
    application,
    basis,
    has_notice,
    is_unopened,
    recent_clicks,
    usual_clicks,
    weeks_without_use,
    clicks_13_weeks,
    clicks_13_weeks_before,
    CAST(NULL AS BIGINT) AS active_applications,
    CAST(NULL AS BIGINT) AS applications,
    CASE WHEN seats > 0 THEN CAST(active_users AS DOUBLE) END AS seats_used,
    CASE WHEN seats > 0 THEN CAST(seats AS DOUBLE) END AS seats,
    are_users_known,
    active_users,
    CAST(NULL AS BIGINT) AS users_without_own_seats,
    usual_users,
    clicks_of_others
FROM with_users
UNION ALL
SELECT
    of_accounts.as_of_week,
    of_accounts.account_id,
    of_accounts.application,
    of_accounts.basis,
    of_accounts.has_notice,
    of_accounts.is_unopened,
    of_accounts.recent_clicks,
    of_accounts.usual_clicks,
    of_accounts.weeks_without_use,
    of_accounts.clicks_13_weeks,
    of_accounts.clicks_13_weeks_before,
    of_accounts.active_applications,
    of_accounts.applications,
    -- seats of the whole account are taken by users of its applications that have none of their own
    CASE
        WHEN of_accounts.has_seats_of_unknown OR (of_accounts.has_unknown_without_seats AND account_seats.seats > 0)
            THEN NULL
        WHEN $has_users AND (of_accounts.seats IS NOT NULL OR account_seats.seats > 0)
            THEN
                coalesce(of_accounts.seats_used, 0)
                -- `least` passes over what is NULL
                + least(users.users_without_own_seats, coalesce(account_seats.seats, 0))
    END AS seats_used,
    CASE
        WHEN of_accounts.seats IS NOT NULL OR account_seats.seats > 0
            THEN CAST(coalesce(of_accounts.seats, 0) + coalesce(account_seats.seats, 0) AS DOUBLE)
    END AS seats,
    users.are_users_known,
    CASE WHEN $has_users THEN users.active_users END AS active_users,
    CASE WHEN $has_users THEN users.users_without_own_seats END AS users_without_own_seats,
    CASE WHEN $has_users THEN users.usual_users END AS usual_users,
    CASE WHEN $has_users THEN users.clicks_of_others END AS clicks_of_others
FROM of_accounts
LEFT JOIN account_seats
    ON of_accounts.as_of_week = account_seats.as_of_week AND of_accounts.account_id = account_seats.account_id
INNER JOIN users
    ON
        of_accounts.as_of_week = users.as_of_week
        AND of_accounts.account_id = users.account_id
        AND users.application IS NULL
