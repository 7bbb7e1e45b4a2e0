-- a row: account x application that was ever in contract or ever used: contract and usage state on the day of as_of
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

-- the spell that runs on as_of, else the last one before it, else the first to come
spells AS (
    SELECT *
    FROM core.contract_spells
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

usage AS (
    SELECT
        weekly.account_id,
        weekly.application,
        max(weekly.last_day) FILTER (WHERE weekly.clicks > 0) AS last_used_ever,
        -- of the spell, by the same rule as `is_used` of the grid
        max(least(weekly.last_day, spells.end_date)) FILTER (
            WHERE weekly.clicks > 0 AND weekly.last_day >= spells.start_date AND weekly.first_day <= spells.end_date
        ) AS last_used_in_spell,
        max(weekly.last_day) FILTER (WHERE weekly.clicks > 0 AND weekly.last_day < spells.start_date)
            AS used_before_on,
        sum(weekly.clicks) AS clicks
    FROM core.weekly_usage AS weekly
    LEFT JOIN spells ON weekly.account_id = spells.account_id AND weekly.application = spells.application
    GROUP BY weekly.account_id, weekly.application
),

in_contract AS (
    SELECT
        pair_id,
        sum(clicks) AS clicks
    FROM core.usage_grid
    GROUP BY pair_id
),

pairs AS (
    SELECT
        account_id,
        application
    FROM spells
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

-- how it was used before the end: the last 13 full weeks in contract
before_end AS (
    SELECT
        grid.pair_id,
        avg(grid.clicks) AS clicks_per_week
    FROM core.usage_grid AS grid
    INNER JOIN spells ON grid.pair_id = spells.pair_id AND grid.spell_number = spells.spell_number
    WHERE
        grid.is_complete
        AND grid.contract_days = 7
        AND grid.week_start > spells.end_date - 97
        AND spells.end_date < CAST($as_of_day AS DATE)
    GROUP BY grid.pair_id
),

-- the last weeks against as many before them, where both were whole weeks of one contract
weekly AS (
    SELECT
        states.pair_id,
        states.clicks,
        states.came_back,
        states.spell_number = newest_states.spell_number AS is_same_contract,
        newest_states.weeks_without_use,
        newest_states.full_weeks - states.full_weeks AS weeks_ago
    FROM newest_states
    INNER JOIN core.usage_states AS states ON newest_states.pair_id = states.pair_id
),

trends AS (
    SELECT
        pair_id,
        count(*) FILTER (WHERE is_same_contract) AS weeks,
        avg(clicks) FILTER (WHERE is_same_contract AND weeks_ago < 4) AS last_4,
        avg(clicks) FILTER (WHERE is_same_contract AND weeks_ago BETWEEN 4 AND 7) AS before_4,
        avg(clicks) FILTER (WHERE is_same_contract AND weeks_ago < 13) AS last_13,
        avg(clicks) FILTER (WHERE is_same_contract AND weeks_ago BETWEEN 13 AND 25) AS before_13,
        avg(clicks) FILTER (WHERE is_same_contract AND weeks_ago < 52) AS last_52,
        avg(clicks) FILTER (WHERE is_same_contract AND weeks_ago BETWEEN 52 AND 103) AS before_52,
        -- the quarter that ended with the last week of use
        avg(clicks) FILTER (WHERE weeks_ago BETWEEN weeks_without_use AND weeks_without_use + 12)
            AS clicks_when_last_used,
        bool_or(came_back) FILTER (WHERE weeks_ago < 8) AS came_back
    FROM weekly
    GROUP BY pair_id
),

placed AS (
    SELECT
        spells.pair_id,
        pairs.account_id,
        pairs.application,
        spells.spell_number,
        spells.basis,
        spells.start_date,
        nullif(spells.end_date, DATE '9999-12-31') AS end_date,
        spells.notice_date,
        spells.end_reason,
        spells.ended_with,
        spells.renewal_date,
        spells.seats,
        spells.annual_value,
        usage.last_used_ever,
        usage.last_used_in_spell,
        usage.used_before_on,
        coalesce(usage.clicks, 0) - coalesce(in_contract.clicks, 0) AS clicks_outside_contract,
        before_end.clicks_per_week AS clicks_per_week_before_end,
        CASE
            WHEN spells.account_id IS NULL THEN 'no contract'
            WHEN spells.start_date > CAST($as_of_day AS DATE) THEN 'not started'
            WHEN spells.end_date < CAST($as_of_day AS DATE) THEN 'ended'
            WHEN spells.notice_date <= CAST($as_of_day AS DATE) THEN 'notice given'
            ELSE 'in contract'
        END AS contract_state
    FROM pairs
    LEFT JOIN spells ON pairs.account_id = spells.account_id AND pairs.application = spells.application
    LEFT JOIN usage ON pairs.account_id = usage.account_id AND pairs.application = usage.application
    LEFT JOIN in_contract ON spells.pair_id = in_contract.pair_id
    LEFT JOIN before_end ON spells.pair_id = before_end.pair_id
),

judged AS (
    SELECT
        placed.* EXCLUDE (last_used_in_spell, used_before_on),
        placed.contract_state IN ('in contract', 'notice given') AS is_running,
        -- beside a state stands the use that it is about; use before the contract is told in words
        CASE WHEN is_running THEN placed.last_used_in_spell ELSE placed.last_used_ever END AS last_used_on,
        CASE WHEN is_running THEN placed.used_before_on END AS used_before_on,
        -- an ended pair has no usage state: it can be neither low nor inactive
        CASE WHEN is_running THEN coalesce(states.usage_state, 'new') END AS state_of_newest_week,
        -- that nobody came is known of complete weeks alone; that somebody came is known at once
        coalesce(
            is_running
            AND states.usage_state IN ('never used', 'inactive')
            AND placed.last_used_in_spell > newest.week_start + 6,
            FALSE
        ) AS is_used_since
    FROM placed
    CROSS JOIN newest
    LEFT JOIN newest_states AS states
        ON placed.pair_id = states.pair_id AND placed.spell_number = states.spell_number
)

SELECT
    placed.* EXCLUDE (is_running),
    coalesce(placed.spell_number >= 2, FALSE) AS has_returned,
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
    -- an ended pair is judged no more, nor one by what was before the contract that runs
    ON
        CASE WHEN placed.is_running THEN placed.pair_id END = states.pair_id
        AND placed.spell_number = states.spell_number
LEFT JOIN trends ON states.pair_id = trends.pair_id
