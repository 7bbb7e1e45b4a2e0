-- a row: account x application x week with at least one day in contract: zero where nobody came, NULL where unknown
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
    CASE WHEN weeks.has_arrived THEN coalesce(usage.clicks, 0) END AS clicks,
    CASE WHEN weeks.has_arrived AND $has_records THEN coalesce(usage.records_created, 0) END AS records_created,
    CASE WHEN weeks.has_arrived AND $has_users THEN coalesce(usage.active_users, 0) END AS active_users,
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
