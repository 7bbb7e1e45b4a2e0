-- a row: a reason to call an account: kind x application (or the account as a whole), with how urgent it is
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

owned AS (
    SELECT
        *,
        contract_state = 'notice given' AS has_notice,
        coalesce(renewal_date - CAST($as_of_day AS DATE) BETWEEN 0 AND $renewal_days, FALSE) AS renews_soon
    FROM core.pair_states
    WHERE contract_state IN ('in contract', 'notice given')
),

-- said before: without an older week on record nobody knows what is new
issued AS (SELECT min(as_of_week) AS first_week FROM core.issued_scores),

-- of a flag that lasts, its newest week
dropped AS (
    SELECT
        flags.account_id,
        flags.application_key,
        flags.week_start,
        flags.first_week,
        flags.tier,
        flags.flag_state,
        replace(flags.what_happened, flags.application || ' at ' || flags.account || ': ', '') AS words
    FROM mart.flagged_weeks AS flags
    WHERE
        flags.scope = 'account'
        AND flags.direction = 'down'
        AND flags.tier != 'expected'
        AND flags.flag_state IN ('new', 'ongoing')
    QUALIFY row_number() OVER (
        PARTITION BY flags.account_id, flags.application_key ORDER BY flags.week_start DESC
    ) = 1
),

found AS (
    SELECT
        owned.account_id,
        owned.application,
        'notice given' AS call_reason,
        'given on ' || strftime(owned.notice_date, '%-d %b %Y')
        || coalesce(', ends on ' || strftime(owned.end_date, '%-d %b %Y'), '') AS words,
        owned.notice_date AS since,
        owned.notice_date >= newest.week_start AS is_new,
        CASE WHEN owned.notice_date > newest.week_start - 7 * $recent_call_weeks THEN 1 ELSE 2 END AS urgency
    FROM owned
    CROSS JOIN newest
    WHERE owned.has_notice
    UNION ALL
    -- one week that is merely listed is as often chance as not
    SELECT
        owned.account_id,
        owned.application,
        'drop in use' AS call_reason,
        dropped.words,
        CAST(dropped.first_week AS DATE) AS since,
        dropped.flag_state = 'new' AS is_new,
        CASE WHEN dropped.tier = 'strong' THEN 1 WHEN dropped.flag_state = 'ongoing' THEN 2 ELSE 3 END AS urgency
    FROM owned
    INNER JOIN dropped
        ON owned.account_id = dropped.account_id AND owned.application = dropped.application_key
    WHERE NOT owned.has_notice
    UNION ALL
    SELECT
        owned.account_id,
        owned.application,
        CASE owned.usage_state
            WHEN 'inactive' THEN 'no longer used'
            WHEN 'low' THEN 'used far less than usual'
            ELSE 'never used'
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
    INNER JOIN mart.account_applications AS told
        ON owned.account_id = told.account_id AND owned.application = told.application_key
    WHERE owned.usage_state IN ('inactive', 'low', 'never used') AND NOT owned.has_notice
    UNION ALL
    -- only where a model has earned its place: a rule sees what the other reasons say already
    SELECT
        risks.account_id,
        nullif(risks.application_key, 'all') AS application,
        CASE risks.target
            WHEN 'low use' THEN 'likely to be used little'
            WHEN 'cancellation' THEN 'likely to leave'
            ELSE 'likely to leave altogether'
        END AS call_reason,
        risks.chance_in_words || ' for ' || risks.risk || coalesce('; ' || nullif(risks.reason, ''), '') AS words,
        CAST(risks.listed_since AS DATE) AS since,
        risks.listed_since = newest.week_start AND issued.first_week < newest.week_start AS is_new,
        CASE
            WHEN risks.target = 'loss of the account' THEN 1
            WHEN risks.target = 'cancellation' OR risks.chance >= 0.5 THEN 2
            ELSE 3
        END AS urgency
    FROM mart.usage_risks AS risks
    CROSS JOIN newest
    CROSS JOIN issued
    WHERE risks.method_in_force = 'model'
    UNION ALL
    SELECT
        owned.account_id,
        owned.application,
        'renewal near' AS call_reason,
        'renewal on ' || strftime(owned.renewal_date, '%-d %b %Y') AS words,
        owned.renewal_date - $renewal_days AS since,
        owned.renewal_date - $renewal_days > CAST($as_of_day AS DATE) - 7 AS is_new,
        -- raised by its own nearness below: by itself it is no more than a date to keep in mind
        4 AS urgency
    FROM owned
    WHERE owned.renews_soon AND NOT owned.has_notice
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
    CASE WHEN found.is_new THEN 'new' ELSE 'known' END AS news,
    -- what renews soon cannot wait
    CAST(
        greatest(1, least(3, found.urgency - CASE WHEN owned.renews_soon THEN 1 ELSE 0 END)) AS BIGINT
    ) AS urgency_rank,
    ['call now', 'call soon', 'keep in mind'][urgency_rank] AS urgency,
    owned.annual_value
FROM found
INNER JOIN core.account_names AS names ON found.account_id = names.account_id
LEFT JOIN owned ON found.account_id = owned.account_id AND found.application = owned.application
LEFT JOIN core.application_names AS applications ON found.application = applications.application_key
ORDER BY found.account_id, urgency_rank, found.call_reason, applications.application
