-- grain: account x application, or account (no application), subscribed when the week of as-of had ended
WITH complete AS (
    SELECT
        week_start,
        (CAST($as_of_week AS DATE) - week_start) // 7 AS ago
    FROM core.weeks
    WHERE is_complete
),

spans AS (
    SELECT
        count(*) FILTER (WHERE ago < 2) AS in_2,
        count(*) FILTER (WHERE ago < 4) AS in_4,
        count(*) FILTER (WHERE ago < 12) AS in_12,
        count(*) FILTER (WHERE ago < 13) AS in_13,
        count(*) FILTER (WHERE ago < 26) AS in_26
    FROM complete
),

starts AS (
    SELECT
        begun.customer_since,
        count(complete.week_start) AS weeks
    FROM (SELECT DISTINCT customer_since FROM core.subscribed) AS begun
    LEFT JOIN complete ON begun.customer_since <= complete.week_start
    GROUP BY begun.customer_since
),

entities AS (
    SELECT
        account_id,
        application,
        has_subscription,
        customer_since,
        days_to_renewal,
        1 AS applications
    FROM core.subscribed
    UNION ALL
    SELECT
        account_id,
        NULL AS application,
        bool_or(has_subscription) AS has_subscription,
        min(customer_since) AS customer_since,
        min(days_to_renewal) AS days_to_renewal,
        count(*) AS applications
    FROM core.subscribed
    GROUP BY account_id
),

account_application_weeks AS (
    SELECT
        usage.account_id,
        usage.application,
        complete.ago,
        usage.clicks,
        usage.records_created
    FROM core.subscribed AS owned
    INNER JOIN core.weekly_usage AS usage
        ON
            owned.account_id = usage.account_id
            AND owned.application = usage.application
            AND owned.customer_since <= usage.week_start
    INNER JOIN complete ON usage.week_start = complete.week_start
),

entity_weeks AS (
    SELECT * FROM account_application_weeks
    UNION ALL
    SELECT
        account_id,
        NULL AS application,
        ago,
        sum(clicks) AS clicks,
        sum(records_created) AS records_created
    FROM account_application_weeks
    GROUP BY account_id, ago
),

-- whole numbers until the very end: the same rows in another order give the same sums, to the bit
sums AS (
    SELECT
        account_id,
        application,
        min(ago) FILTER (WHERE clicks > 0) AS weeks_since_use,
        max(ago) FILTER (WHERE clicks > 0) AS weeks_since_first_use,
        count(*) FILTER (WHERE clicks > 0 AND ago < 13) AS weeks_used_13,
        coalesce(sum(clicks) FILTER (WHERE ago < 2), 0) AS clicks_2,
        coalesce(sum(clicks) FILTER (WHERE ago < 4), 0) AS clicks_4,
        coalesce(sum(clicks) FILTER (WHERE ago < 12), 0) AS clicks_12,
        coalesce(sum(clicks) FILTER (WHERE ago < 13), 0) AS clicks_13,
        coalesce(sum(clicks) FILTER (WHERE ago < 26), 0) AS clicks_26,
        coalesce(sum(clicks * clicks) FILTER (WHERE ago < 26), 0) AS squares_26,
        coalesce(sum(records_created) FILTER (WHERE ago < 4), 0) AS records_4,
        coalesce(sum(records_created) FILTER (WHERE ago < 12), 0) AS records_12
    FROM entity_weeks
    GROUP BY account_id, application
),

account_application_people AS (
    SELECT
        users.account_id,
        users.application,
        users.user_id,
        complete.ago,
        users.clicks
    FROM core.subscribed AS owned
    INNER JOIN core.weekly_users AS users
        ON
            owned.account_id = users.account_id
            AND owned.application = users.application
            AND owned.customer_since <= users.week_start
    INNER JOIN complete ON users.week_start = complete.week_start
    WHERE
        complete.ago < greatest(12, $regular_reach_weeks)
        AND users.clicks > 0
        AND users.user_id IS NOT NULL
),

people AS (
    SELECT
        account_id,
        application,
        user_id,
        count(*) FILTER (WHERE ago < 4) AS weeks_recent,
        count(*) FILTER (WHERE ago BETWEEN 4 AND 11) AS weeks_before,
        count(*) FILTER (WHERE ago < $regular_recent_weeks) AS weeks_since,
        count(*) FILTER (WHERE ago >= $regular_recent_weeks AND ago < $regular_reach_weeks) AS weeks_of_baseline,
        coalesce(sum(clicks) FILTER (WHERE ago < 4), 0) AS clicks_recent
    FROM account_application_people
    GROUP BY account_id, application, user_id
    UNION ALL
    SELECT
        account_id,
        NULL AS application,
        user_id,
        count(DISTINCT ago) FILTER (WHERE ago < 4) AS weeks_recent,
        count(DISTINCT ago) FILTER (WHERE ago BETWEEN 4 AND 11) AS weeks_before,
        count(DISTINCT ago) FILTER (WHERE ago < $regular_recent_weeks) AS weeks_since,
        count(DISTINCT ago) FILTER (WHERE ago >= $regular_recent_weeks AND ago < $regular_reach_weeks)
            AS weeks_of_baseline,
        coalesce(sum(clicks) FILTER (WHERE ago < 4), 0) AS clicks_recent
    FROM account_application_people
    GROUP BY account_id, user_id
),

user_sums AS (
    SELECT
        account_id,
        application,
        count(*) FILTER (WHERE weeks_recent > 0) AS users_recent,
        sum(weeks_recent) AS user_weeks_recent,
        sum(weeks_before) AS user_weeks_before,
        count(*) FILTER (WHERE weeks_of_baseline >= $regular_weeks) AS regular_users,
        count(*) FILTER (WHERE weeks_of_baseline >= $regular_weeks AND weeks_since = 0) AS regular_users_gone,
        max(clicks_recent) AS clicks_of_top_user
    FROM people
    GROUP BY account_id, application
),

breadths AS (
    SELECT
        owned.account_id,
        count(*) AS applications_owned,
        count(*) FILTER (WHERE sums.clicks_4 > 0) AS applications_used
    FROM core.subscribed AS owned
    LEFT JOIN sums ON owned.account_id = sums.account_id AND owned.application = sums.application
    GROUP BY owned.account_id
),

-- the coming weeks a year ago against the weeks before them, of all accounts of the application
seasons AS (
    SELECT
        usage.application,
        count(DISTINCT complete.ago) FILTER (WHERE complete.ago BETWEEN 44 AND 51) AS weeks_ahead,
        count(DISTINCT complete.ago) FILTER (WHERE complete.ago BETWEEN 52 AND 55) AS weeks_until,
        coalesce(sum(usage.clicks) FILTER (WHERE complete.ago BETWEEN 44 AND 51), 0) AS clicks_ahead,
        coalesce(sum(usage.clicks) FILTER (WHERE complete.ago BETWEEN 52 AND 55), 0) AS clicks_until
    FROM core.weekly_usage AS usage
    INNER JOIN complete ON usage.week_start = complete.week_start
    WHERE complete.ago BETWEEN 44 AND 55
    GROUP BY GROUPING SETS ((usage.application), ())
),

levels AS (
    SELECT
        entities.account_id,
        entities.application,
        entities.has_subscription,
        starts.weeks AS weeks_subscribed,
        date_diff('day', entities.customer_since, CAST($as_of_week AS DATE) + 6) AS subscription_age_days,
        entities.days_to_renewal,
        entities.applications,
        least(coalesce(sums.weeks_since_use, starts.weeks), 52) AS weeks_since_use,
        coalesce(sums.weeks_since_first_use, 0) AS weeks_since_first_use,
        sums.weeks_since_use IS NOT NULL AS has_used,
        coalesce(sums.weeks_used_13, 0) / nullif(least(starts.weeks, spans.in_13), 0) AS share_of_weeks_used,
        coalesce(sums.clicks_2, 0) / nullif(least(starts.weeks, spans.in_2), 0) AS clicks_2,
        coalesce(sums.clicks_4, 0) / nullif(least(starts.weeks, spans.in_4), 0) AS clicks_recent,
        coalesce(sums.clicks_12 - sums.clicks_4, 0)
        / nullif(least(starts.weeks, spans.in_12) - least(starts.weeks, spans.in_4), 0) AS clicks_before,
        coalesce(sums.clicks_12 - sums.clicks_2, 0)
        / nullif(least(starts.weeks, spans.in_12) - least(starts.weeks, spans.in_2), 0) AS clicks_before_2,
        coalesce(sums.clicks_13, 0) / nullif(least(starts.weeks, spans.in_13), 0) AS clicks_13,
        coalesce(sums.clicks_26 - sums.clicks_13, 0)
        / nullif(least(starts.weeks, spans.in_26) - least(starts.weeks, spans.in_13), 0) AS clicks_before_13,
        coalesce(sums.clicks_26, 0) / nullif(least(starts.weeks, spans.in_26), 0) AS clicks_usual,
        coalesce(sums.squares_26, 0) / nullif(least(starts.weeks, spans.in_26), 0) AS squares_usual,
        CASE WHEN $has_records THEN coalesce(sums.records_4, 0) / nullif(least(starts.weeks, spans.in_4), 0) END
            AS records_recent,
        CASE
            WHEN $has_records
                THEN
                    coalesce(sums.records_12 - sums.records_4, 0)
                    / nullif(least(starts.weeks, spans.in_12) - least(starts.weeks, spans.in_4), 0)
        END AS records_before,
        CASE WHEN $has_users THEN coalesce(users.users_recent, 0) END AS users_recent,
        CASE WHEN $has_users THEN coalesce(users.regular_users, 0) END AS regular_users,
        CASE WHEN $has_users THEN coalesce(users.regular_users_gone, 0) END AS regular_users_gone,
        CASE
            WHEN $has_users THEN coalesce(users.user_weeks_recent, 0) / nullif(least(starts.weeks, spans.in_4), 0)
        END AS weekly_users_recent,
        CASE
            WHEN $has_users
                THEN
                    coalesce(users.user_weeks_before, 0)
                    / nullif(least(starts.weeks, spans.in_12) - least(starts.weeks, spans.in_4), 0)
        END AS weekly_users_before,
        CASE WHEN $has_users THEN users.clicks_of_top_user / nullif(sums.clicks_4, 0) END AS top_user_share,
        breadths.applications_owned,
        breadths.applications_used,
        CASE
            WHEN seasons.weeks_ahead >= 4 AND seasons.weeks_until >= 2
                THEN
                    ln(
                        (seasons.clicks_ahead / seasons.weeks_ahead + 1)
                        / (seasons.clicks_until / seasons.weeks_until + 1)
                    )
        END AS season_ahead
    FROM entities
    CROSS JOIN spans
    INNER JOIN starts ON entities.customer_since = starts.customer_since
    INNER JOIN breadths ON entities.account_id = breadths.account_id
    LEFT JOIN sums
        ON entities.account_id = sums.account_id AND entities.application IS NOT DISTINCT FROM sums.application
    LEFT JOIN user_sums AS users
        ON entities.account_id = users.account_id AND entities.application IS NOT DISTINCT FROM users.application
    LEFT JOIN seasons ON entities.application IS NOT DISTINCT FROM seasons.application
),

-- what the accounts of an application did together, or all accounts; in hundredths of a click, again whole numbers
peers AS (
    SELECT
        application,
        count(*) AS peers,
        sum(CAST(round(100 * clicks_recent) AS BIGINT)) AS clicks_recent,
        sum(CAST(round(100 * clicks_before) AS BIGINT)) AS clicks_before
    FROM levels
    WHERE weeks_subscribed >= 12
    GROUP BY application
),

compared AS (
    SELECT
        levels.*,
        CASE
            WHEN peers.peers >= 20 THEN ln((peers.clicks_recent + 100) / (peers.clicks_before + 100)) ELSE 0
        END AS peers_change,
        ln((levels.clicks_recent + 1) / (levels.clicks_before + 1)) AS change,
        ln((of_account.clicks_recent + 1) / (of_account.clicks_before + 1)) AS account_change
    FROM levels
    LEFT JOIN peers ON levels.application IS NOT DISTINCT FROM peers.application
    INNER JOIN levels AS of_account ON levels.account_id = of_account.account_id AND of_account.application IS NULL
)

SELECT
    CAST($as_of_week AS DATE) AS as_of_week,
    account_id,
    application,
    has_subscription,
    -- for words, and for the rule
    has_used,
    clicks_recent,
    clicks_before,
    clicks_usual,
    users_recent,
    regular_users,
    regular_users_gone,
    applications_owned,
    applications_used,
    -- what the model sees
    ln(clicks_recent + 1) AS level_recent,
    ln(clicks_usual + 1) AS level_usual,
    change,
    ln((clicks_2 + 1) / (clicks_before_2 + 1)) AS change_of_2_weeks,
    ln((clicks_13 + 1) / (clicks_before_13 + 1)) AS change_of_13_weeks,
    change - peers_change AS change_against_peers,
    percent_rank() OVER (PARTITION BY application, change IS NULL ORDER BY change) AS rank_of_change,
    weeks_since_use,
    share_of_weeks_used,
    sqrt(greatest(squares_usual - clicks_usual * clicks_usual, 0)) / (clicks_usual + 1) AS unsteadiness,
    ln(weekly_users_recent + 1) AS level_of_users,
    ln((weekly_users_recent + 1) / (weekly_users_before + 1)) AS change_of_users,
    CASE WHEN regular_users > 0 THEN regular_users_gone / regular_users END AS share_of_users_gone,
    top_user_share,
    ln((clicks_recent + 1) / (weekly_users_recent + 1)) AS depth,
    ln(records_recent + 1) AS level_of_records,
    ln((records_recent + 1) / (records_before + 1)) AS change_of_records,
    ln(applications_owned) AS breadth_owned,
    applications_used / applications_owned AS breadth_used,
    account_change,
    peers_change,
    season_ahead,
    weeks_since_first_use,
    subscription_age_days,
    days_to_renewal
FROM compared
WHERE weeks_subscribed >= 1
ORDER BY account_id, application
