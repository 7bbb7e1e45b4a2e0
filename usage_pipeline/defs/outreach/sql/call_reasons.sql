-- grain: a reason to call an account: kind x application (or the account as a whole), with how urgent it is
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

owned AS (
    SELECT
        *,
        subscription_state = 'notice received' AS has_notice,
        coalesce(renewal_date - CAST($as_of_day AS DATE) BETWEEN 0 AND $renewal_days, FALSE) AS renews_soon,
        coalesce(renewal_date - CAST($as_of_day AS DATE) BETWEEN 0 AND $urgent_renewal_days, FALSE) AS renews_at_once
    FROM core.account_application_states
    WHERE subscription_state IN ('active subscription', 'notice received')
),

-- a customer who decides within days about one application decides with the others in mind
deciding AS (
    SELECT DISTINCT account_id
    FROM owned
    WHERE renews_at_once AND NOT has_notice
),

-- said before: without an older week on record nobody knows what is new
issued AS (SELECT min(as_of_week) AS first_week FROM core.score_snapshots),

-- of an anomaly that lasts, its newest week
dropped AS (
    SELECT
        anomalies.account_id,
        anomalies.application_key,
        anomalies.week_start,
        anomalies.first_week,
        anomalies.confidence,
        anomalies.anomaly_status,
        replace(
            anomalies.what_happened,
            format($text__anomaly__of_account, anomalies.application, anomalies.account),
            ''
        ) AS words
    FROM mart.anomaly_weeks AS anomalies
    WHERE
        anomalies.scope = 'account'
        AND anomalies.direction = 'down'
        AND anomalies.confidence != 'explained'
        AND anomalies.anomaly_status IN ('new', 'ongoing')
    QUALIFY row_number() OVER (
        PARTITION BY anomalies.account_id, anomalies.application_key ORDER BY anomalies.week_start DESC
    ) = 1
),

found AS (
    SELECT
        owned.account_id,
        owned.application,
        'notice received' AS call_reason,
        coalesce(format($text__reason__given, strftime(owned.notice_date, $date_format)), $text__reason__cancelled)
        || coalesce(format($text__reason__ends, strftime(owned.end_date, $date_format)), '') AS words,
        owned.notice_date AS since,
        coalesce(owned.notice_date >= newest.week_start, FALSE) AS is_new,
        -- where nobody says when it came, it may have come today
        CASE WHEN owned.notice_date <= newest.week_start - 7 * $recent_call_weeks THEN 2 ELSE 1 END AS urgency
    FROM owned
    CROSS JOIN newest
    WHERE owned.has_notice
    UNION ALL
    -- one week that is merely listed is as often chance as not
    SELECT
        owned.account_id,
        owned.application,
        'usage drop' AS call_reason,
        dropped.words,
        CAST(dropped.first_week AS DATE) AS since,
        dropped.anomaly_status = 'new' AS is_new,
        CASE WHEN dropped.confidence = 'high' THEN 1 WHEN dropped.anomaly_status = 'ongoing' THEN 2 ELSE 3 END
            AS urgency
    FROM owned
    INNER JOIN dropped
        ON owned.account_id = dropped.account_id AND owned.application = dropped.application_key
    WHERE NOT owned.has_notice
    UNION ALL
    SELECT
        owned.account_id,
        owned.application,
        CASE owned.usage_state
            WHEN 'inactive' THEN 'inactive'
            WHEN 'low' THEN 'usage down'
            ELSE 'never adopted'
        END AS call_reason,
        told.reason AS words,
        owned.usage_state_since AS since,
        owned.usage_state_since = newest.week_start AS is_new,
        CASE
            WHEN owned.usage_state_since <= newest.week_start - 7 * $recent_call_weeks THEN 3
            WHEN owned.usage_state = 'inactive' THEN 1
            ELSE 2
        END AS urgency
    FROM owned
    CROSS JOIN newest
    INNER JOIN mart.subscription_overview AS told
        ON owned.account_id = told.account_id AND owned.application = told.application_key
    WHERE owned.usage_state IN ('inactive', 'low', 'never adopted') AND NOT owned.has_notice
    UNION ALL
    -- only where a model has earned its place: a rule sees what the other reasons say already
    SELECT
        risks.account_id,
        nullif(risks.application_key, 'all') AS application,
        CASE risks.target
            WHEN 'low usage' THEN 'low-usage risk'
            WHEN 'churn' THEN 'churn risk'
            ELSE 'account churn risk'
        END AS call_reason,
        format($text__reason__risk, risks.probability_text, risks.risk)
        || coalesce('; ' || nullif(risks.driver, ''), '') AS words,
        CAST(risks.listed_since AS DATE) AS since,
        risks.listed_since = newest.week_start AND issued.first_week < newest.week_start AS is_new,
        CASE
            WHEN risks.target = 'account churn' THEN 1
            WHEN risks.target = 'churn' OR risks.probability >= 0.5 THEN 2
            ELSE 3
        END AS urgency
    FROM mart.usage_risks AS risks
    CROSS JOIN newest
    CROSS JOIN issued
    WHERE risks.method_in_force = 'model'
    UNION ALL
    -- by itself health is on every page; where the customer is about to decide it is a reason
    SELECT
        health.account_id,
        NULL AS application,
        'low health' AS call_reason,
        format($text__reason__health, CAST(health.health AS INTEGER), health.health_reason) AS words,
        newest.week_start AS since,
        coalesce(health.health_before >= $health_amber, FALSE) AS is_new,
        1 AS urgency
    FROM mart.account_health AS health
    INNER JOIN deciding ON health.account_id = deciding.account_id
    CROSS JOIN newest
    WHERE health.application_key = 'all' AND health.health_color = 'red'
    UNION ALL
    -- of an application that renews at once, while the account as a whole is well
    SELECT
        owned.account_id,
        owned.application,
        'low health' AS call_reason,
        format($text__reason__health, CAST(health.health AS INTEGER), health.health_reason) AS words,
        newest.week_start AS since,
        coalesce(health.health_before >= $health_amber, FALSE) AS is_new,
        1 AS urgency
    FROM owned
    CROSS JOIN newest
    INNER JOIN mart.account_health AS health
        ON owned.account_id = health.account_id AND owned.application = health.application_key
    LEFT JOIN mart.account_health AS of_account
        ON owned.account_id = of_account.account_id AND of_account.application_key = 'all'
    WHERE
        owned.renews_at_once
        AND NOT owned.has_notice
        AND health.health_color = 'red'
        AND of_account.health_color IS DISTINCT FROM 'red'
    UNION ALL
    SELECT
        owned.account_id,
        owned.application,
        'champion silent' AS call_reason,
        split_part(users.what_of_users, '; ', 1) AS words,
        CAST(date_trunc('week', users.champion_last_used_on) AS DATE) + 7 AS since,
        since = newest.week_start - 7 * ($champion_silent_weeks - 1) AS is_new,
        2 AS urgency
    FROM owned
    CROSS JOIN newest
    INNER JOIN mart.subscription_users AS users
        ON owned.account_id = users.account_id AND owned.application = users.application_key
    WHERE users.champion_is_silent AND NOT owned.has_notice
    UNION ALL
    SELECT
        owned.account_id,
        owned.application,
        'upcoming renewal' AS call_reason,
        format($text__reason__renewal, strftime(owned.renewal_date, $date_format)) AS words,
        owned.renewal_date - $renewal_days AS since,
        owned.renewal_date - $renewal_days > CAST($as_of_day AS DATE) - 7 AS is_new,
        -- by itself it is no more than a date to keep in mind
        3 AS urgency
    FROM owned
    WHERE owned.renews_soon AND NOT owned.has_notice
),

called AS (
    SELECT DISTINCT account_id
    FROM found
    WHERE call_reason != 'upcoming renewal'
),

concerned AS (
    SELECT DISTINCT
        found.account_id,
        found.application
    FROM found
    INNER JOIN called ON found.account_id = called.account_id
),

-- that one person does most of the work is common and makes no call; who calls about the application should know it
with_context AS (
    SELECT * FROM found
    UNION ALL
    SELECT
        owned.account_id,
        owned.application,
        'one-person dependence' AS call_reason,
        format(
            $text__users__one_user, CAST(round(100 * users.top_user_share) AS INTEGER), $dependence_weeks
        ) AS words,
        NULL AS since,
        FALSE AS is_new,
        3 AS urgency
    FROM owned
    INNER JOIN mart.subscription_users AS users
        ON owned.account_id = users.account_id AND owned.application = users.application_key
    INNER JOIN concerned
        ON owned.account_id = concerned.account_id AND owned.application = concerned.application
    WHERE users.depends_on_one
),

with_signs AS (
    SELECT
        found.*,
        found.call_reason NOT IN ('upcoming renewal', 'low-usage risk', 'one-person dependence') AS is_red_sign,
        -- of the application, or of the account as a whole
        coalesce(bool_or(is_red_sign) OVER (PARTITION BY found.account_id, found.application), FALSE)
        OR coalesce(bool_or(is_red_sign AND found.application IS NULL) OVER (PARTITION BY found.account_id), FALSE)
            AS has_red_sign
    FROM with_context AS found
),

with_priority AS (
    SELECT
        with_signs.*,
        CASE
            WHEN with_signs.is_red_sign AND deciding.account_id IS NOT NULL THEN 1
            WHEN with_signs.call_reason = 'upcoming renewal'
                THEN CASE WHEN with_signs.has_red_sign AND owned.renews_at_once THEN 1 ELSE 3 END
            WHEN with_signs.call_reason = 'one-person dependence' THEN 3
            -- what renews soon cannot wait
            ELSE greatest(1, least(3, with_signs.urgency - CASE WHEN owned.renews_soon THEN 1 ELSE 0 END))
        END AS priority
    FROM with_signs
    LEFT JOIN deciding ON with_signs.account_id = deciding.account_id
    LEFT JOIN owned ON with_signs.account_id = owned.account_id AND with_signs.application = owned.application
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
    found.call_reason,
    found.words AS reason,
    CAST(found.since AS TIMESTAMP) AS reason_since,
    CASE WHEN found.is_new THEN 'new this week' ELSE 'ongoing' END AS news,
    -- a kind that too many called useless comes later
    CAST(least(3, found.priority + CASE WHEN kinds.is_moved_down THEN 1 ELSE 0 END) AS BIGINT) AS urgency_rank,
    ['Urgent', 'This week', 'Watch'][urgency_rank] AS urgency,
    owned.annual_value
FROM with_priority AS found
INNER JOIN core.account_names AS names ON found.account_id = names.account_id
LEFT JOIN owned ON found.account_id = owned.account_id AND found.application = owned.application
LEFT JOIN core.application_names AS applications ON found.application = applications.application_key
LEFT JOIN core.reason_usefulness AS kinds ON found.call_reason = kinds.call_reason
ORDER BY found.account_id, urgency_rank, found.call_reason, applications.application
