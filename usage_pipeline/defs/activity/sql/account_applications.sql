-- a row: account x application that was ever in contract or ever used: both states, how long, and the reason in words
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

history AS (
    SELECT min(week_start) AS first_week FROM core.weeks
    WHERE has_arrived
)

SELECT
    pairs.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    pairs.contract_state,
    pairs.basis != 'application' AS is_inferred,
    pairs.spell_number,
    pairs.has_returned,
    CAST(pairs.start_date AS TIMESTAMP) AS start_date,
    CAST(pairs.notice_date AS TIMESTAMP) AS notice_date,
    CAST(pairs.end_date AS TIMESTAMP) AS end_date,
    CAST(pairs.renewal_date AS TIMESTAMP) AS renewal_date,
    -- a renewal that has passed is none that comes
    CASE
        WHEN pairs.renewal_date >= CAST($as_of_day AS DATE) THEN pairs.renewal_date - CAST($as_of_day AS DATE)
    END AS days_to_renewal,
    pairs.seats,
    pairs.annual_value,
    pairs.usage_state,
    CAST(pairs.usage_state_since AS TIMESTAMP) AS usage_state_since,
    CAST((newest.week_start - pairs.usage_state_since) / 7 + 1 AS INTEGER) AS weeks_in_state,
    CAST(pairs.last_used_on AS TIMESTAMP) AS last_used_on,
    pairs.recent_clicks,
    pairs.usual_clicks,
    pairs.trend_4_weeks,
    pairs.trend_13_weeks,
    pairs.trend_52_weeks,
    pairs.rank_in_application,
    pairs.came_back,
    CAST(pairs.clicks_outside_contract AS BIGINT) AS clicks_outside_contract,
    CASE pairs.usage_state
        WHEN 'never used'
            THEN
                CASE
                    WHEN pairs.start_date < history.first_week
                        THEN
                            'no use since ' || strftime(history.first_week, '%-d %b %Y') || ', the first week on record'
                    ELSE 'no use since the contract began on ' || strftime(pairs.start_date, '%-d %b %Y')
                END
                || coalesce('; used before it began, last on ' || strftime(pairs.used_before_on, '%-d %b %Y'), '')
        WHEN 'inactive'
            THEN
                'no use for ' || pairs.weeks_without_use || ' weeks'
                || CASE
                    WHEN pairs.clicks_when_last_used > 0
                        THEN
                            ', usually '
                            || CASE
                                WHEN pairs.clicks_when_last_used >= 10 THEN round(pairs.clicks_when_last_used)::INTEGER
                                ELSE round(pairs.clicks_when_last_used, 1)
                            END
                            || ' clicks a week before'
                    ELSE ''
                END
        WHEN 'low'
            THEN
                round(pairs.recent_clicks, 1) || ' clicks a week lately, usually ' || round(pairs.usual_clicks)::INTEGER
        WHEN 'new' THEN 'in contract since ' || strftime(pairs.start_date, '%-d %b %Y')
        WHEN 'active'
            THEN
                CASE
                    WHEN pairs.is_used_since AND pairs.state_of_newest_week = 'never used'
                        THEN 'used for the first time, on ' || strftime(pairs.last_used_on, '%-d %b %Y')
                    WHEN pairs.is_used_since
                        THEN
                            'used again on ' || strftime(pairs.last_used_on, '%-d %b %Y') || ', after '
                            || pairs.weeks_without_use || ' weeks without use'
                    WHEN pairs.came_back THEN 'came back lately'
                    ELSE ''
                END
    END AS reason,
    names.account_page,
    applications.application_page,
    names.contacts
FROM core.pair_states AS pairs
CROSS JOIN newest
CROSS JOIN history
INNER JOIN core.account_names AS names ON pairs.account_id = names.account_id
INNER JOIN core.application_names AS applications ON pairs.application = applications.application_key
ORDER BY names.account, applications.application
