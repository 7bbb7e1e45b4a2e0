-- a row: account x application whose use is likely to be low soon, by one rule: lately well below the weeks before
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

levels AS (
    SELECT
        grid.pair_id,
        avg(grid.clicks) FILTER (WHERE grid.week_start > newest.week_start - 7 * $risk_recent_weeks) AS recent_clicks,
        avg(grid.clicks) FILTER (WHERE grid.week_start <= newest.week_start - 7 * $risk_recent_weeks) AS clicks_before,
        count(*) FILTER (WHERE grid.week_start <= newest.week_start - 7 * $risk_recent_weeks) AS weeks_before
    FROM core.usage_grid AS grid
    CROSS JOIN newest
    WHERE
        grid.is_complete
        AND grid.contract_days = 7
        AND grid.week_start > newest.week_start - 7 * ($risk_recent_weeks + $risk_before_weeks)
    GROUP BY grid.pair_id
),

-- what all accounts of the application did together: a summer is no risk
moves AS (
    SELECT
        pairs.application,
        CASE WHEN count(*) >= 20 THEN sum(levels.recent_clicks) / nullif(sum(levels.clicks_before), 0) ELSE 1 END
            AS application_share
    FROM levels
    INNER JOIN core.pairs AS pairs ON levels.pair_id = pairs.pair_id
    GROUP BY pairs.application
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
    levels.recent_clicks,
    levels.clicks_before,
    levels.recent_clicks / levels.clicks_before AS share_of_before,
    moves.application_share,
    'rule' AS method,
    round(levels.recent_clicks, 1) || ' clicks a week in the last ' || $risk_recent_weeks || ' weeks, '
    || round(levels.clicks_before, 1)
    || ' in the '
    || $risk_before_weeks
    || ' before; all accounts of the application: '
    || round(100 * moves.application_share)::INTEGER || ' % of before' AS reason,
    pairs.annual_value,
    CAST(pairs.renewal_date AS TIMESTAMP) AS renewal_date,
    pairs.renewal_date - CAST($as_of_day AS DATE) AS days_to_renewal,
    names.contacts
FROM levels
INNER JOIN core.pair_states AS pairs ON levels.pair_id = pairs.pair_id
INNER JOIN moves ON pairs.application = moves.application
INNER JOIN core.account_names AS names ON pairs.account_id = names.account_id
INNER JOIN core.application_names AS applications ON pairs.application = applications.application_key
WHERE
    pairs.contract_state = 'in contract'
    AND pairs.usage_state = 'active'
    AND levels.weeks_before >= $risk_before_weeks / 2
    AND levels.clicks_before >= $risk_floor_clicks
    AND levels.recent_clicks < $risk_share * levels.clicks_before * least(moves.application_share, 1)
ORDER BY share_of_before
