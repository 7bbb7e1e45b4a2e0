-- a row: account x application x week: in contract (zero where nobody came), used outside it, or used a year ago
WITH grid AS (
    SELECT
        grid.*,
        pairs.account_id,
        pairs.application,
        expected.clicks_before,
        expected.variance_clicks,
        expected.common_spread
    FROM core.usage_grid AS grid
    INNER JOIN core.pairs AS pairs ON grid.pair_id = pairs.pair_id
    LEFT JOIN core.expected_usage AS expected
        ON grid.pair_id = expected.pair_id AND grid.week_start = expected.week_start
),

spine AS (
    SELECT
        week_start,
        account_id,
        application
    FROM grid
    UNION
    SELECT
        week_start,
        account_id,
        application
    FROM core.weekly_usage
    UNION
    SELECT
        weeks.week_start,
        last_year.account_id,
        last_year.application
    FROM core.weekly_usage AS last_year
    INNER JOIN core.weeks AS weeks ON last_year.week_start = weeks.last_year_week
)

SELECT
    CAST(spine.week_start AS TIMESTAMP) AS week_start,
    spine.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    CAST(coalesce(grid.contract_days, 0) AS INTEGER) AS contract_days,
    CASE WHEN grid.account_id IS NOT NULL THEN grid.clicks ELSE usage.clicks END AS clicks,
    CASE WHEN grid.account_id IS NOT NULL THEN grid.records_created ELSE usage.records_created END AS records_created,
    CASE WHEN grid.account_id IS NOT NULL THEN grid.active_users ELSE usage.active_users END AS active_users,
    CASE WHEN last_week.has_arrived THEN coalesce(last_year.clicks, 0) END AS clicks_last_year,
    CASE WHEN last_week.has_arrived AND $has_records THEN coalesce(last_year.records_created, 0) END
        AS records_last_year,
    -- what is too new to be judged, or used outside a contract, is expected as it came: the sums stay comparable
    CASE
        WHEN weeks.is_complete
            THEN
                coalesce(grid.clicks_before, CASE WHEN grid.account_id IS NULL THEN usage.clicks ELSE grid.clicks END)
    END AS expected_clicks,
    CASE WHEN weeks.is_complete THEN coalesce(grid.variance_clicks, 0) END AS variance_clicks,
    grid.common_spread,
    weeks.is_complete,
    weeks.is_running,
    weeks.week_status,
    pair_flags.kind AS flag,
    application_flags.kind AS application_flag,
    all_flags.kind AS all_flag
FROM spine
INNER JOIN core.weeks AS weeks ON spine.week_start = weeks.week_start
INNER JOIN core.account_names AS names ON spine.account_id = names.account_id
INNER JOIN core.application_names AS applications ON spine.application = applications.application_key
LEFT JOIN grid
    ON
        spine.week_start = grid.week_start
        AND spine.account_id = grid.account_id
        AND spine.application = grid.application
LEFT JOIN core.weekly_usage AS usage
    ON
        spine.week_start = usage.week_start
        AND spine.account_id = usage.account_id
        AND spine.application = usage.application
LEFT JOIN core.weeks AS last_week ON weeks.last_year_week = last_week.week_start
LEFT JOIN core.weekly_usage AS last_year
    ON
        weeks.last_year_week = last_year.week_start
        AND spine.account_id = last_year.account_id
        AND spine.application = last_year.application
LEFT JOIN core.usage_flags AS pair_flags
    ON
        pair_flags.scope = 'account'
        AND pair_flags.measure = 'clicks'
        AND spine.week_start = pair_flags.week_start
        AND spine.account_id = pair_flags.account_id
        AND spine.application = pair_flags.application
LEFT JOIN core.usage_flags AS application_flags
    ON
        application_flags.scope = 'application'
        AND application_flags.measure = 'clicks'
        AND spine.week_start = application_flags.week_start
        AND spine.application = application_flags.application
LEFT JOIN core.usage_flags AS all_flags
    ON all_flags.scope = 'all' AND all_flags.measure = 'clicks' AND spine.week_start = all_flags.week_start
ORDER BY spine.week_start
