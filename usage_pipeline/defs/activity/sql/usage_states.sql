-- a row: account x application x complete week of seven contract days: how it was used, judged by what was known then
WITH counted AS (
    SELECT
        week_start,
        account_id,
        application,
        spell_number,
        contract_state,
        contract_days,
        clicks,
        count(*) FILTER (WHERE contract_days = 7) OVER pair AS full_weeks,
        count(*) FILTER (WHERE contract_days = 7) OVER spell AS full_weeks_of_spell,
        max(last_day) FILTER (WHERE clicks > 0) OVER pair AS last_used_on
    FROM core.usage_grid
    WHERE is_complete
    WINDOW
        pair AS (PARTITION BY account_id, application ORDER BY week_start),
        spell AS (PARTITION BY account_id, application, spell_number ORDER BY week_start)
),

recency AS (
    SELECT
        *,
        full_weeks - coalesce(max(CASE WHEN clicks > 0 THEN full_weeks END) OVER pair, 0) AS weeks_without_use
    FROM counted
    WINDOW pair AS (PARTITION BY account_id, application ORDER BY week_start)
),

silences AS (
    SELECT
        *,
        lag(weeks_without_use) OVER pair AS weeks_without_use_before,
        lag(last_used_on) OVER pair AS last_used_before
    FROM recency
    WINDOW pair AS (PARTITION BY account_id, application ORDER BY week_start)
),

levels AS (
    SELECT
        *,
        avg(clicks) OVER recently AS recent_clicks,
        median(clicks) OVER usually AS usual_clicks,
        CASE WHEN clicks > 0 THEN avg(clicks) OVER quarter END AS level_in_use
    FROM silences
    WHERE contract_days = 7
    WINDOW
        quarter AS (
            PARTITION BY account_id, application ORDER BY week_start ROWS BETWEEN 12 PRECEDING AND CURRENT ROW
        ),
        recently AS (
            PARTITION BY account_id, application
            ORDER BY week_start
            ROWS BETWEEN $recent_frame PRECEDING AND CURRENT ROW
        ),
        usually AS (
            PARTITION BY account_id, application
            ORDER BY week_start
            ROWS BETWEEN $usual_frame PRECEDING AND $recent_weeks PRECEDING
        )
),

judged AS (
    SELECT
        *,
        CASE
            WHEN full_weeks_of_spell <= $new_weeks THEN 'new'
            WHEN last_used_on IS NULL THEN 'never used'
            WHEN weeks_without_use >= $inactive_weeks THEN 'inactive'
            WHEN usual_clicks >= $low_floor_clicks AND recent_clicks < $low_share * usual_clicks THEN 'low'
            ELSE 'active'
        END AS usage_state,
        -- the silence before was one between two uses, not the time before the first
        coalesce(
            clicks > 0 AND weeks_without_use_before >= $inactive_weeks AND last_used_before IS NOT NULL, FALSE
        ) AS came_back
    FROM levels
),

changed AS (
    SELECT
        *,
        lag(usage_state, 1, '') OVER pair AS state_before,
        last_value(level_in_use IGNORE NULLS) OVER pair AS clicks_when_last_used
    FROM judged
    WINDOW pair AS (PARTITION BY account_id, application ORDER BY week_start)
)

SELECT
    week_start,
    account_id,
    application,
    spell_number,
    contract_state,
    usage_state,
    max(CASE WHEN usage_state != state_before THEN week_start END) OVER (
        PARTITION BY account_id, application ORDER BY week_start
    ) AS state_since,
    clicks,
    recent_clicks,
    usual_clicks,
    clicks_when_last_used,
    CAST(weeks_without_use AS INTEGER) AS weeks_without_use,
    last_used_on,
    came_back
FROM changed
ORDER BY account_id, application, week_start
