-- grain: account x subscribed application (or the account as a whole) x measure: where it stands among its peers
WITH clicks_of_accounts AS (
    SELECT
        account_id,
        sum(recent_clicks) AS recent_clicks
    FROM core.account_application_states
    GROUP BY account_id
),

figures AS (
    SELECT
        users.account_id,
        users.application_key,
        CASE WHEN users.application_key = 'all' THEN NULL ELSE users.application_key END AS application,
        users.monthly_active_users,
        users.seats,
        CASE WHEN users.application_key = 'all' THEN clicks_of_accounts.recent_clicks ELSE states.recent_clicks END
            AS recent_clicks,
        CASE WHEN users.application_key = 'all' THEN accounts.breadth END AS adoption
    FROM mart.subscription_users AS users
    INNER JOIN mart.accounts_summary AS accounts ON users.account_id = accounts.account_id
    LEFT JOIN core.account_application_states AS states
        ON users.account_id = states.account_id AND users.application_key = states.application
    LEFT JOIN clicks_of_accounts ON users.account_id = clicks_of_accounts.account_id
),

-- what is not known of an account makes it no peer; without use, a seat and a user are used not at all
valued AS (
    SELECT
        account_id,
        application_key,
        'clicks a week per seat' AS peer_measure,
        recent_clicks / nullif(seats, 0) AS value
    FROM figures
    UNION ALL
    SELECT
        account_id,
        application_key,
        'clicks a week per active user' AS peer_measure,
        CASE
            WHEN monthly_active_users > 0 THEN recent_clicks / monthly_active_users
            WHEN monthly_active_users = 0 THEN 0
        END AS value
    FROM figures
    WHERE recent_clicks IS NOT NULL
    UNION ALL
    SELECT
        account_id,
        application_key,
        'monthly active users' AS peer_measure,
        CAST(monthly_active_users AS DOUBLE) AS value
    FROM figures
    UNION ALL
    SELECT
        account_id,
        application_key,
        'adoption' AS peer_measure,
        adoption AS value
    FROM figures
    WHERE application_key = 'all'
),

grouped AS (
    SELECT
        valued.*,
        peer_groups.peer_group,
        peer_groups.peer_group IS NOT NULL AND valued.value IS NOT NULL AS is_compared
    FROM valued
    LEFT JOIN core.peer_groups AS peer_groups ON valued.account_id = peer_groups.account_id
),

ranked AS (
    SELECT
        *,
        count(*) OVER same - 1 AS peers,
        is_compared AND peers >= $peers_minimum AS is_placed,
        rank() OVER (same ORDER BY value) - 1 AS below,
        count(*) OVER (
            PARTITION BY application_key, peer_measure, peer_group, is_compared, value
        ) - 1 AS alike,
        median(value) OVER same AS median_of_group
    FROM grouped
    WINDOW same AS (PARTITION BY application_key, peer_measure, peer_group, is_compared)
)

SELECT
    ranked.account_id,
    names.account,
    ranked.application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    ranked.peer_measure,
    ranked.value AS peer_value,
    ranked.peer_group,
    CASE WHEN ranked.is_compared THEN ranked.peers END AS peers,
    -- those below it, and half of those alike
    CASE WHEN ranked.is_placed THEN (ranked.below + ranked.alike / 2) / ranked.peers END AS percentile,
    CASE WHEN ranked.is_placed THEN ranked.median_of_group END AS group_median,
    CASE
        WHEN ranked.peer_group IS NULL THEN $text__peers__no_segment
        WHEN ranked.value IS NULL THEN $text__peers__not_known
        WHEN ranked.peers >= $peers_minimum THEN ''
        WHEN ranked.peers = 0 THEN format($text__peers__none, ranked.peer_group)
        WHEN ranked.peers = 1 THEN format($text__peers__one, ranked.peer_group)
        WHEN ranked.peers < $peers_minimum THEN format($text__peers__few, ranked.peers, ranked.peer_group)
        ELSE ''
    END AS why_no_percentile
FROM ranked
INNER JOIN core.account_names AS names ON ranked.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON ranked.application_key = applications.application_key
ORDER BY names.account, ranked.application_key != 'all', applications.application, ranked.peer_measure
