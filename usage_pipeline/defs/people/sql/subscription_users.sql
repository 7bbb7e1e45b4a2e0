-- grain: account x subscribed application, or the account as a whole: its users, its seats, and on whom it depends
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

complete AS (
    SELECT
        weeks.week_start,
        (newest.week_start - weeks.week_start) // 7 AS ago
    FROM core.weeks AS weeks
    CROSS JOIN newest
    WHERE weeks.is_complete
),

-- users of the newest four weeks, as health counts them
active AS (
    SELECT
        inputs.account_id,
        inputs.application,
        inputs.active_users,
        inputs.users_without_own_seats
    FROM core.health_inputs AS inputs
    INNER JOIN newest ON inputs.as_of_week = newest.week_start
),

owned AS (
    SELECT
        account_id,
        application,
        start_date,
        usage_state,
        seats,
        annual_value
    FROM core.account_application_states
    WHERE subscription_state IN ('active subscription', 'notice received')
),

application_weeks AS (
    SELECT
        owned.account_id,
        owned.application,
        users.user_id,
        complete.ago,
        -- of the week in which the subscription began, which clicks came before the start is not known
        CASE WHEN users.week_start >= owned.start_date THEN users.clicks ELSE 0 END AS clicks,
        users.last_day,
        -- and it makes nobody a regular user
        users.week_start >= owned.start_date AS is_full
    FROM owned
    INNER JOIN core.weekly_users AS users
        ON
            owned.account_id = users.account_id
            AND owned.application = users.application
            AND owned.start_date <= users.last_day
    INNER JOIN complete ON users.week_start = complete.week_start
    WHERE
        users.clicks > 0
        AND complete.ago
        < greatest(4, $regular_reach_weeks, $dependence_weeks, $champion_reach_weeks + 1)
),

-- the account as a whole has no application
entity_weeks AS (
    SELECT * FROM application_weeks
    UNION ALL
    SELECT
        account_id,
        NULL AS application,
        user_id,
        ago,
        sum(clicks) AS clicks,
        max(last_day) AS last_day,
        bool_or(is_full) AS is_full
    FROM application_weeks
    GROUP BY account_id, user_id, ago
),

of_users AS (
    SELECT
        account_id,
        application,
        user_id,
        max(last_day) AS last_day,
        count(*) FILTER (WHERE ago < 4) AS weeks_of_month,
        bool_or(ago = 0) AS is_in_newest_week,
        count(*) FILTER (WHERE ago < $regular_recent_weeks) AS weeks_recent,
        count(*) FILTER (WHERE is_full AND ago >= $regular_recent_weeks AND ago < $regular_reach_weeks)
            AS weeks_of_baseline,
        coalesce(sum(clicks) FILTER (WHERE ago < $dependence_weeks), 0) AS clicks_lately,
        count(*) FILTER (WHERE ago < $dependence_weeks) AS weeks_lately,
        count(*) FILTER (WHERE ago < $champion_silent_weeks) AS weeks_since,
        coalesce(
            sum(clicks) FILTER (WHERE ago BETWEEN $champion_silent_weeks AND $champion_reach_weeks), 0
        ) AS clicks_before,
        count(*) FILTER (WHERE ago BETWEEN $champion_silent_weeks AND $champion_reach_weeks) AS weeks_before
    FROM entity_weeks
    WHERE user_id IS NOT NULL
    GROUP BY account_id, application, user_id
),

-- clicks of rows without a user are clicks of nobody in particular, and of the whole all the same; of weeks that have
-- no others, who came is not known
clicks_of_all AS (
    SELECT
        account_id,
        application,
        coalesce(sum(clicks) FILTER (WHERE ago < $dependence_weeks), 0) AS clicks_lately,
        coalesce(
            sum(clicks) FILTER (WHERE ago BETWEEN $champion_silent_weeks AND $champion_reach_weeks), 0
        ) AS clicks_before,
        bool_and(user_id IS NULL) FILTER (WHERE ago = 0) AS is_week_unknown,
        bool_and(user_id IS NULL) FILTER (WHERE ago < 4) AS is_month_unknown,
        bool_and(user_id IS NULL) FILTER (WHERE ago < $regular_recent_weeks) AS is_recent_unknown,
        bool_and(user_id IS NULL) FILTER (WHERE ago >= $regular_recent_weeks AND ago < $regular_reach_weeks)
            AS is_baseline_unknown,
        bool_and(user_id IS NULL) FILTER (WHERE ago < $dependence_weeks) AS is_lately_unknown,
        bool_and(user_id IS NULL) FILTER (WHERE ago < $champion_silent_weeks) AS is_since_unknown,
        bool_and(user_id IS NULL) FILTER (WHERE ago BETWEEN $champion_silent_weeks AND $champion_reach_weeks)
            AS is_before_unknown
    FROM entity_weeks
    GROUP BY account_id, application
),

counted AS (
    SELECT
        account_id,
        application,
        count(*) FILTER (WHERE is_in_newest_week) AS weekly_active_users,
        sum(weeks_of_month) AS user_weeks,
        count(*) FILTER (WHERE weeks_of_baseline >= $regular_weeks) AS regular_users,
        count(*) FILTER (WHERE weeks_of_baseline >= $regular_weeks AND weeks_recent = 0) AS regular_users_lost,
        max(clicks_lately) AS clicks_of_top_user,
        arg_max(weeks_lately, (clicks_lately, weeks_lately)) AS weeks_of_top_user,
        count(*) FILTER (WHERE weeks_since > 0) AS users_since
    FROM of_users
    GROUP BY account_id, application
),

-- that somebody came is known at once, of weeks that are not complete too, and in any application
seen AS (
    SELECT DISTINCT
        users.account_id,
        users.user_id
    FROM core.weekly_users AS users
    CROSS JOIN newest
    WHERE users.clicks > 0 AND users.week_start > newest.week_start - 7 * $champion_silent_weeks
),

main_users AS (
    SELECT *
    FROM of_users
    WHERE clicks_before > 0
    QUALIFY row_number() OVER (PARTITION BY account_id, application ORDER BY clicks_before DESC, user_id) = 1
),

-- who moved to another application was last seen there
last_seen AS (
    SELECT
        users.account_id,
        users.user_id,
        max(users.last_day) AS last_day
    FROM core.weekly_users AS users
    SEMI JOIN main_users ON users.account_id = main_users.account_id AND users.user_id = main_users.user_id
    WHERE users.clicks > 0
    GROUP BY users.account_id, users.user_id
),

champions AS (
    SELECT
        main_users.account_id,
        main_users.application,
        last_seen.last_day,
        seen.user_id IS NULL AS is_silent
    FROM main_users
    INNER JOIN last_seen ON main_users.account_id = last_seen.account_id AND main_users.user_id = last_seen.user_id
    INNER JOIN clicks_of_all
        ON
            main_users.account_id = clicks_of_all.account_id
            AND main_users.application IS NOT DISTINCT FROM clicks_of_all.application
    LEFT JOIN seen ON main_users.account_id = seen.account_id AND main_users.user_id = seen.user_id
    WHERE
        main_users.weeks_before >= $champion_steady_weeks
        AND main_users.clicks_before >= $champion_share * clicks_of_all.clicks_before
),

-- seats of the whole account are for those who use what has no seats of its own
account_seats AS (
    SELECT
        subscriptions.account_id,
        subscriptions.start_date,
        subscriptions.seats,
        coalesce(active.users_without_own_seats, 0) AS users
    FROM core.account_subscriptions AS subscriptions
    LEFT JOIN active ON subscriptions.account_id = active.account_id AND active.application IS NULL
    WHERE subscriptions.subscription_state IN ('active subscription', 'notice received')
),

application_seats AS (
    SELECT
        owned.account_id,
        sum(owned.seats) AS seats,
        sum(coalesce(active.active_users, 0)) FILTER (WHERE owned.seats IS NOT NULL) AS users,
        coalesce(bool_or(of_all.is_month_unknown) FILTER (WHERE owned.seats IS NOT NULL), FALSE) AS has_unknown,
        coalesce(bool_or(of_all.is_month_unknown) FILTER (WHERE owned.seats IS NULL), FALSE)
            AS has_unknown_without_seats
    FROM owned
    LEFT JOIN active ON owned.account_id = active.account_id AND owned.application = active.application
    LEFT JOIN clicks_of_all AS of_all
        ON owned.account_id = of_all.account_id AND owned.application = of_all.application
    GROUP BY owned.account_id
),

entities AS (
    SELECT
        owned.account_id,
        owned.application,
        owned.start_date,
        owned.usage_state,
        owned.seats,
        coalesce(active.active_users, 0) AS seats_used,
        FALSE AS has_unknown_users,
        owned.annual_value
    FROM owned
    LEFT JOIN active ON owned.account_id = active.account_id AND owned.application = active.application
    UNION ALL
    SELECT
        account_seats.account_id,
        NULL AS application,
        account_seats.start_date,
        NULL AS usage_state,
        CASE
            WHEN account_seats.seats IS NOT NULL OR application_seats.seats IS NOT NULL
                THEN coalesce(account_seats.seats, 0) + coalesce(application_seats.seats, 0)
        END AS seats,
        CASE WHEN account_seats.seats IS NOT NULL THEN account_seats.users ELSE 0 END
        + coalesce(application_seats.users, 0) AS seats_used,
        coalesce(
            application_seats.has_unknown
            OR (account_seats.seats IS NOT NULL AND application_seats.has_unknown_without_seats),
            FALSE
        ) AS has_unknown_users,
        summary.annual_value
    FROM account_seats
    LEFT JOIN application_seats ON account_seats.account_id = application_seats.account_id
    INNER JOIN mart.accounts_summary AS summary ON account_seats.account_id = summary.account_id
),

-- complete weeks of the last four in which the subscription ran
months AS (
    SELECT
        begun.start_date,
        count(complete.week_start) AS weeks
    FROM (SELECT DISTINCT start_date FROM entities) AS begun
    LEFT JOIN complete ON begun.start_date <= complete.week_start + 6 AND complete.ago < 4
    GROUP BY begun.start_date
),

figures AS (
    SELECT
        entities.*,
        CASE WHEN NOT coalesce(of_all.is_week_unknown, NOT $has_users) THEN coalesce(counted.weekly_active_users, 0) END
            AS weekly_active_users,
        CASE WHEN NOT coalesce(of_all.is_month_unknown, NOT $has_users) THEN coalesce(active.active_users, 0) END
            AS monthly_active_users,
        counted.user_weeks / nullif(months.weeks, 0) / nullif(monthly_active_users, 0) AS stickiness,
        CASE
            WHEN NOT (entities.has_unknown_users OR coalesce(of_all.is_month_unknown, NOT $has_users))
                THEN entities.seats_used / nullif(entities.seats, 0)
        END AS seat_utilization,
        CASE WHEN NOT coalesce(of_all.is_baseline_unknown, NOT $has_users) THEN coalesce(counted.regular_users, 0) END
            AS regular_users,
        CASE
            WHEN NOT coalesce(of_all.is_recent_unknown OR of_all.is_baseline_unknown, NOT $has_users)
                THEN coalesce(counted.regular_users_lost, 0)
        END AS regular_users_lost,
        counted.clicks_of_top_user / nullif(of_all.clicks_lately, 0) AS top_user_share,
        CASE
            WHEN NOT coalesce(of_all.is_lately_unknown, NOT $has_users)
                THEN
                    coalesce(
                        counted.clicks_of_top_user >= $dependence_share * of_all.clicks_lately
                        AND of_all.clicks_lately >= $dependence_floor_clicks
                        AND counted.weeks_of_top_user >= $dependence_floor_weeks,
                        FALSE
                    )
        END AS depends_on_one,
        CASE WHEN NOT coalesce(of_all.is_before_unknown, NOT $has_users) THEN champions.account_id IS NOT NULL END
            AS has_champion,
        CASE
            WHEN NOT coalesce(of_all.is_since_unknown, NOT $has_users) AND has_champion IS NOT NULL
                THEN coalesce(champions.is_silent, FALSE)
        END AS champion_is_silent,
        CASE WHEN champion_is_silent THEN champions.last_day END AS champion_last_used_on,
        CASE WHEN champion_is_silent THEN coalesce(counted.users_since, 0) END AS users_going_on
    FROM entities
    INNER JOIN months ON entities.start_date = months.start_date
    LEFT JOIN active
        ON entities.account_id = active.account_id AND entities.application IS NOT DISTINCT FROM active.application
    LEFT JOIN counted
        ON entities.account_id = counted.account_id AND entities.application IS NOT DISTINCT FROM counted.application
    LEFT JOIN clicks_of_all AS of_all
        ON entities.account_id = of_all.account_id AND entities.application IS NOT DISTINCT FROM of_all.application
    LEFT JOIN champions
        ON
            entities.account_id = champions.account_id
            AND entities.application IS NOT DISTINCT FROM champions.application
)

SELECT
    figures.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    figures.usage_state,
    CAST(figures.weekly_active_users AS BIGINT) AS weekly_active_users,
    CAST(figures.monthly_active_users AS BIGINT) AS monthly_active_users,
    figures.stickiness,
    CAST(figures.seats AS BIGINT) AS seats,
    figures.seat_utilization,
    CAST(figures.regular_users AS BIGINT) AS regular_users,
    CAST(figures.regular_users_lost AS BIGINT) AS regular_users_lost,
    figures.top_user_share,
    figures.depends_on_one,
    figures.has_champion,
    figures.champion_is_silent,
    CAST(figures.champion_last_used_on AS TIMESTAMP) AS champion_last_used_on,
    CAST(figures.users_going_on AS BIGINT) AS users_going_on,
    concat_ws(
        '; ',
        CASE
            WHEN figures.champion_is_silent
                THEN
                    format(
                        CASE WHEN $has_days THEN $text__users__last_seen_on ELSE $text__users__last_seen_in_week END,
                        strftime(figures.champion_last_used_on, $date_format)
                    )
                    || CASE figures.users_going_on
                        WHEN 0 THEN $text__users__nobody_goes_on
                        WHEN 1 THEN $text__users__one_goes_on
                        ELSE format($text__users__others_go_on, figures.users_going_on)
                    END
        END,
        CASE
            WHEN figures.depends_on_one
                THEN
                    format(
                        $text__users__one_user,
                        CAST(round(100 * figures.top_user_share) AS INTEGER),
                        $dependence_weeks
                    )
        END,
        CASE
            WHEN figures.regular_users_lost > 0
                THEN
                    format(
                        $text__users__did_not_come,
                        figures.regular_users_lost,
                        figures.regular_users,
                        $regular_recent_weeks
                    )
        END
    ) AS what_of_users,
    figures.annual_value
FROM figures
INNER JOIN core.account_names AS names ON figures.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON figures.application = applications.application_key
ORDER BY names.account, figures.application IS NOT NULL, applications.application
