-- a row: account x application x month (or week) in which it was used, in contract, won, lost or at risk
-- and account x month in which a contract about the whole account ran: its seats and value belong to no application
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

-- those in force on the last day: several can run side by side, and each is worth what it says
account_rows AS (
    SELECT
        steps.nth,
        pairs.pair_no,
        pairs.account_no,
        sum(subscriptions.seats) AS seats,
        sum(subscriptions.annual_value) AS annual_value
    FROM ref.subscriptions AS subscriptions
    INNER JOIN steps
        ON
            subscriptions.start_date <= steps.last_day
            AND coalesce(subscriptions.end_date, DATE '9999-12-31') >= steps.last_day
    INNER JOIN kpi_pairs AS pairs ON subscriptions.account_id = pairs.account_id AND pairs.application IS NULL
    WHERE subscriptions.application IS NULL
    GROUP BY steps.nth, pairs.pair_no, pairs.account_no
),

-- seats of the whole account are taken by users of its applications that have none of their own
account_users AS (
    SELECT
        account_rows.nth,
        account_rows.pair_no,
        count(DISTINCT kpi_use.user_no) AS active_users
    FROM account_rows
    INNER JOIN kpi_use ON account_rows.nth = kpi_use.nth AND account_rows.account_no = kpi_use.account_no
    INNER JOIN contracts ON kpi_use.nth = contracts.nth AND kpi_use.pair_no = contracts.pair_no
    WHERE kpi_use.clicks > 0 AND contracts.is_in_contract AND contracts.seats IS NULL
    GROUP BY account_rows.nth, account_rows.pair_no
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
    FROM account_rows
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
    pairs.application IS NULL AS is_whole_account,
    coalesce(contracts.is_in_contract, account_rows.pair_no IS NOT NULL) AS is_in_contract,
    coalesce(contracts.seats, account_rows.seats) AS seats,
    coalesce(contracts.annual_value, account_rows.annual_value) AS annual_value,
    CASE
        WHEN $has_users AND coalesce(contracts.seats, account_rows.seats) IS NOT NULL
            THEN
                least(
                    coalesce(used.active_users, account_users.active_users, 0),
                    coalesce(contracts.seats, account_rows.seats)
                )
    END AS seats_taken,
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
LEFT JOIN account_rows ON spine.nth = account_rows.nth AND spine.pair_no = account_rows.pair_no
LEFT JOIN account_users ON spine.nth = account_users.nth AND spine.pair_no = account_users.pair_no
LEFT JOIN states ON spine.nth = states.nth AND spine.pair_no = states.pair_no
LEFT JOIN changes ON spine.nth = changes.nth AND spine.pair_no = changes.pair_no
LEFT JOIN risks ON spine.nth = risks.nth AND spine.pair_no = risks.pair_no
