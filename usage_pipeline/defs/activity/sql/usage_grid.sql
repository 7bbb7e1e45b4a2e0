-- a row: account x application x week with a day in contract: zero where nobody came, NULL where that is not known
SELECT
    weeks.week_start,
    spells.account_id,
    spells.application,
    spells.spell_number,
    CAST(
        least(spells.end_date, weeks.week_start + 6) - greatest(spells.start_date, weeks.week_start) + 1 AS INTEGER
    ) AS contract_days,
    CASE
        WHEN spells.end_date < weeks.week_start + 6 THEN 'ended'
        WHEN spells.notice_date <= weeks.week_start + 6 THEN 'notice given'
        ELSE 'in contract'
    END AS contract_state,
    weeks.is_complete,
    weeks.is_running,
    -- in a week that is not complete, what came is known, and that nobody came is not
    CASE WHEN weeks.is_complete THEN coalesce(usage.clicks, 0) ELSE usage.clicks END AS clicks,
    CASE WHEN weeks.is_complete AND $has_records THEN coalesce(usage.records_created, 0) ELSE usage.records_created END
        AS records_created,
    CASE WHEN weeks.is_complete AND $has_users THEN coalesce(usage.active_users, 0) ELSE usage.active_users END
        AS active_users,
    usage.last_day
FROM core.contract_spells AS spells
INNER JOIN core.weeks AS weeks
    ON spells.start_date <= weeks.week_start + 6 AND spells.end_date >= weeks.week_start
LEFT JOIN core.weekly_usage AS usage
    ON
        weeks.week_start = usage.week_start
        AND spells.account_id = usage.account_id
        AND spells.application = usage.application
ORDER BY spells.account_id, spells.application, weeks.week_start
