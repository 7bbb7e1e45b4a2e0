-- grain: what a renewal talk is about: kind x account x application that it lacks, has outgrown, or hardly uses
WITH owned AS (
    SELECT
        account_id,
        application,
        annual_value,
        renewal_date
    FROM core.account_application_states
    WHERE
        subscription_state IN ('active subscription', 'notice received')
        -- what is inferred from use says nothing of what an account could buy
        AND basis = 'application'
),

-- accounts of which the list of applications is known: what is sold as a whole for a price lacks nothing that is known
members AS (
    SELECT
        peer_groups.account_id,
        peer_groups.peer_group,
        count(*) OVER (PARTITION BY peer_groups.peer_group) - 1 AS peers
    FROM core.peer_groups AS peer_groups
    WHERE
        peer_groups.account_id IN (SELECT account_id FROM owned)
        AND peer_groups.account_id NOT IN (
            SELECT account_id
            FROM core.account_subscriptions
            WHERE annual_value > 0
        )
),

of_group AS (
    SELECT
        members.peer_group,
        owned.application,
        count(*) AS holders,
        median(owned.annual_value) AS annual_value
    FROM members
    INNER JOIN owned ON members.account_id = owned.account_id
    GROUP BY members.peer_group, owned.application
),

gaps AS (
    SELECT
        members.account_id,
        of_group.application,
        members.peer_group,
        members.peers,
        of_group.holders,
        of_group.holders / members.peers AS peers_share,
        of_group.annual_value AS peers_annual_value,
        known.end_date
    FROM members
    INNER JOIN of_group ON members.peer_group = of_group.peer_group
    LEFT JOIN core.account_application_states AS known
        ON members.account_id = known.account_id AND of_group.application = known.application
    WHERE
        members.peers >= $peers_minimum
        AND of_group.holders >= $gap_share * members.peers
        -- neither what it has nor what is sold and has not begun
        AND coalesce(known.subscription_state, 'no subscription') IN ('no subscription', 'ended')
),

found AS (
    SELECT
        account_id,
        application,
        'expansion gap' AS expansion_kind,
        format($text__expansion__peers_have_it, holders, peers, peer_group)
        || coalesce(format($text__expansion__until, strftime(end_date, $date_format)), '') AS reason,
        peers,
        peers_share,
        peers_annual_value,
        CAST(NULL AS BIGINT) AS seats,
        CAST(NULL AS BIGINT) AS monthly_active_users,
        CAST(NULL AS DOUBLE) AS seat_utilization,
        CAST(NULL AS DOUBLE) AS annual_value
    FROM gaps
    UNION ALL
    SELECT
        users.account_id,
        nullif(users.application_key, 'all') AS application,
        CASE
            WHEN users.seats = 0 OR users.seat_utilization >= $used_up_share THEN 'seats used up'
            ELSE 'shelfware'
        END AS expansion_kind,
        CASE
            WHEN users.monthly_active_users = 1 THEN $text__expansion__one_user
            ELSE format($text__expansion__users, users.monthly_active_users)
        END
        || CASE
            WHEN users.seats = 1 THEN $text__expansion__one_seat
            ELSE format($text__expansion__seats, users.seats)
        END AS reason,
        CAST(NULL AS BIGINT) AS peers,
        CAST(NULL AS DOUBLE) AS peers_share,
        CAST(NULL AS DOUBLE) AS peers_annual_value,
        users.seats,
        users.monthly_active_users,
        users.seat_utilization,
        users.annual_value
    FROM mart.subscription_users AS users
    LEFT JOIN core.account_subscriptions AS whole ON users.account_id = whole.account_id
    WHERE
        -- seats of a whole account count where it has some: else its row repeats those of its applications
        (users.application_key != 'all' OR whole.seats IS NOT NULL)
        AND (
            users.seat_utilization >= $used_up_share
            -- of no seats there is no share
            OR (users.seats = 0 AND users.monthly_active_users > 0)
            OR (
                users.seat_utilization <= $shelfware_share
                AND users.seats >= $shelfware_floor_seats
                -- who has just begun has not taken the seats yet
                AND users.usage_state IS DISTINCT FROM 'new'
            )
        )
)

SELECT
    found.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    found.expansion_kind,
    found.reason,
    found.peers,
    found.peers_share,
    found.peers_annual_value,
    found.seats,
    found.monthly_active_users,
    found.seat_utilization,
    found.annual_value,
    -- of what an account has, its own day; of what it lacks, the day on which the account is talked to next
    CAST(CASE WHEN owned.account_id IS NULL THEN summary.renewal_date ELSE owned.renewal_date END AS TIMESTAMP)
        AS renewal_date
FROM found
INNER JOIN core.account_names AS names ON found.account_id = names.account_id
INNER JOIN mart.accounts_summary AS summary ON found.account_id = summary.account_id
LEFT JOIN owned ON found.account_id = owned.account_id AND found.application = owned.application
LEFT JOIN core.application_names AS applications ON found.application = applications.application_key
ORDER BY found.expansion_kind, coalesce(found.peers_annual_value, found.annual_value) DESC NULLS LAST, names.account
