-- a row: account x application x week with a day in contract: zero where nobody came, NULL where that is not known
WITH spell_weeks AS (
    SELECT
        spells.pair_id,
        weeks.week_start,
        spells.spell_number,
        greatest(spells.start_date, weeks.week_start) AS first_contract_day,
        least(spells.end_date, weeks.week_start + 6) AS last_contract_day,
        -- never below 1 in what is joined; the planner may count before it joins
        CAST(greatest(last_contract_day - first_contract_day + 1, 0) AS TINYINT) AS contract_days,
        CAST(
            CASE
                WHEN spells.end_date < weeks.week_start + 6 THEN 'ended'
                WHEN spells.notice_date <= weeks.week_start + 6 THEN 'notice given'
                ELSE 'in contract'
            END AS ENUM('in contract', 'notice given', 'ended')
        ) AS contract_state,
        weeks.is_complete
    FROM core.contract_spells AS spells
    INNER JOIN core.weeks AS weeks
        ON spells.start_date <= weeks.week_start + 6 AND spells.end_date >= weeks.week_start
),

usage AS (
    SELECT
        pairs.pair_id,
        weekly.week_start,
        weekly.clicks,
        weekly.records_created,
        weekly.active_users,
        weekly.first_day,
        weekly.last_day
    FROM core.weekly_usage AS weekly
    INNER JOIN core.pairs AS pairs ON weekly.account_id = pairs.account_id AND weekly.application = pairs.application
)

SELECT
    spell_weeks.* EXCLUDE (first_contract_day, last_contract_day),
    -- in a week that is not complete, what came is known, and that nobody came is not
    CASE WHEN spell_weeks.is_complete THEN coalesce(usage.clicks, 0) ELSE usage.clicks END AS clicks,
    CASE
        WHEN spell_weeks.is_complete AND $has_records THEN coalesce(usage.records_created, 0)
        ELSE usage.records_created
    END AS records_created,
    CASE
        WHEN spell_weeks.is_complete AND $has_users THEN coalesce(usage.active_users, 0)
        ELSE usage.active_users
    END AS active_users,
    -- on a day in contract, whatever of the week is known: what was used before it began makes no use of this one
    coalesce(
        usage.clicks > 0
        AND usage.last_day >= spell_weeks.first_contract_day
        AND usage.first_day <= spell_weeks.last_contract_day,
        FALSE
    ) AS is_used
FROM spell_weeks
LEFT JOIN usage ON spell_weeks.pair_id = usage.pair_id AND spell_weeks.week_start = usage.week_start
ORDER BY spell_weeks.pair_id, spell_weeks.week_start
