-- a row: account x application x month (or week) in which it was used, in contract, won, lost or at risk
WITH steps AS (
    SELECT *
    FROM core.kpi_steps
    WHERE calendar = $calendar
),

used AS (
    SELECT
        nth,
        pair_no,
        sum(clicks) AS clicks,
        sum(records_created) AS records_created,
        count(user_no) FILTER (WHERE clicks > 0) AS active_users
    FROM kpi_use
    GROUP BY nth, pair_no
),

contracts AS (
    SELECT
        steps.nth,
        pairs.pair_no,
        bool_or(spells.end_date >= steps.last_day AND spells.start_date <= steps.last_day) AS is_in_contract,
        -- one spell at most covers a day
        max(spells.seats) FILTER (WHERE steps.last_day BETWEEN spells.start_date AND spells.end_date) AS seats,
        max(spells.annual_value) FILTER (WHERE steps.last_day BETWEEN spells.start_date AND spells.end_date)
            AS annual_value
    FROM core.contract_spells AS spells
    INNER JOIN steps ON spells.start_date <= steps.last_day AND spells.end_date >= steps.first_day
    INNER JOIN kpi_pairs AS pairs ON spells.account_id = pairs.account_id AND spells.application = pairs.application
    GROUP BY steps.nth, pairs.pair_no
),

states AS (
    SELECT
        steps.nth,
        pairs.pair_no,
        CAST(states.usage_state AS VARCHAR) AS usage_state
    FROM core.usage_states AS states
    INNER JOIN steps ON states.week_start = steps.state_week
    INNER JOIN core.pairs AS numbered ON states.pair_id = numbered.pair_id
    INNER JOIN kpi_pairs AS pairs
        ON numbered.account_id = pairs.account_id AND numbered.application = pairs.application
),

changes AS (
    SELECT
        steps.nth,
        pairs.pair_no,
        events.change
    FROM core.growth_events AS events
    INNER JOIN steps ON events.period_start = steps.first_day
    INNER JOIN kpi_pairs AS pairs ON events.account_id = pairs.account_id AND events.application = pairs.application
    WHERE events.unit = 'application of an account' AND events.period = $calendar
),

risks AS (
    SELECT DISTINCT
        steps.nth,
        pairs.pair_no
    FROM core.issued_scores AS scores
    INNER JOIN steps ON scores.as_of_week = steps.state_week
    INNER JOIN kpi_pairs AS pairs ON scores.account_id = pairs.account_id AND scores.application = pairs.application
    WHERE scores.is_listed
),

spine AS (
    SELECT
        nth,
        pair_no
    FROM used
    UNION
    SELECT
        nth,
        pair_no
    FROM contracts
    UNION
    SELECT
        nth,
        pair_no
    FROM changes
    UNION
    SELECT
        nth,
        pair_no
    FROM risks
)

SELECT
    spine.nth,
    spine.pair_no,
    pairs.account_no,
    coalesce(used.clicks, 0) AS clicks,
    CASE WHEN $has_records THEN coalesce(used.records_created, 0) END AS records_created,
    CASE WHEN $has_users THEN coalesce(used.active_users, 0) END AS active_users,
    coalesce(contracts.is_in_contract, FALSE) AS is_in_contract,
    contracts.seats,
    contracts.annual_value,
    -- what ended after that week has no state
    CASE
        WHEN steps.state_week IS NOT NULL
            THEN CASE WHEN contracts.is_in_contract THEN coalesce(states.usage_state, 'none') ELSE 'none' END
    END AS usage_state,
    CASE WHEN steps.is_risk_known THEN risks.pair_no IS NOT NULL END AS is_at_risk,
    CASE WHEN steps.is_growth_known THEN coalesce(changes.change, 'none') END AS change
FROM spine
INNER JOIN steps ON spine.nth = steps.nth
INNER JOIN kpi_pairs AS pairs ON spine.pair_no = pairs.pair_no
LEFT JOIN used ON spine.nth = used.nth AND spine.pair_no = used.pair_no
LEFT JOIN contracts ON spine.nth = contracts.nth AND spine.pair_no = contracts.pair_no
LEFT JOIN states ON spine.nth = states.nth AND spine.pair_no = states.pair_no
LEFT JOIN changes ON spine.nth = changes.nth AND spine.pair_no = changes.pair_no
LEFT JOIN risks ON spine.nth = risks.nth AND spine.pair_no = risks.pair_no
