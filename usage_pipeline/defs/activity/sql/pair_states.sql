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
        max(weekly.last_day) AS last_used_on,
        sum(weekly.clicks) FILTER (WHERE grid.account_id IS NULL) AS clicks_outside_contract
    FROM core.weekly_usage AS weekly
    LEFT JOIN core.usage_grid AS grid
        ON
            weekly.week_start = grid.week_start
            AND weekly.account_id = grid.account_id
            AND weekly.application = grid.application
    GROUP BY weekly.account_id, weekly.application
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

states AS (
    SELECT
        states.*,
        bool_or(came_back) OVER (
            PARTITION BY account_id, application ORDER BY week_start ROWS BETWEEN 7 PRECEDING AND CURRENT ROW
        ) AS came_back_lately
    FROM core.usage_states AS states
),

-- how it was used before the end: the last 13 full weeks in contract
before_end AS (
    SELECT
        grid.account_id,
        grid.application,
        avg(grid.clicks) AS clicks_per_week
    FROM core.usage_grid AS grid
    INNER JOIN spells
        ON
            grid.account_id = spells.account_id
            AND grid.application = spells.application
            AND grid.spell_number = spells.spell_number
    WHERE
        grid.is_complete
        AND grid.contract_days = 7
        AND grid.week_start > spells.end_date - 7 * 14
        AND spells.end_date < CAST($as_of_day AS DATE)
    GROUP BY grid.account_id, grid.application
),

placed AS (
    SELECT
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
        usage.last_used_on,
        coalesce(usage.clicks_outside_contract, 0) AS clicks_outside_contract,
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
    LEFT JOIN before_end ON pairs.account_id = before_end.account_id AND pairs.application = before_end.application
)

SELECT
    placed.*,
    coalesce(placed.spell_number >= 2, FALSE) AS has_returned,
    -- an ended pair has no usage state: it can be neither low nor inactive
    CASE WHEN placed.contract_state IN ('in contract', 'notice given') THEN coalesce(states.usage_state, 'new') END
        AS usage_state,
    CASE
        WHEN placed.contract_state NOT IN ('in contract', 'notice given') THEN NULL
        -- silence began the week after the last use, not when it had lasted long enough to be called inactive
        WHEN states.usage_state = 'inactive' THEN CAST(date_trunc('week', states.last_used_on) AS DATE) + 7
        ELSE coalesce(states.state_since, placed.start_date)
    END AS usage_state_since,
    states.recent_clicks,
    states.usual_clicks,
    states.clicks_when_last_used,
    states.weeks_without_use,
    coalesce(states.came_back_lately, FALSE) AS came_back
FROM placed
CROSS JOIN newest
LEFT JOIN states
    ON
        placed.account_id = states.account_id
        AND placed.application = states.application
        AND newest.week_start = states.week_start
        AND placed.contract_state IN ('in contract', 'notice given')
