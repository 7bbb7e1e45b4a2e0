-- a row: a flagged week of a pair (scope 'account') or of an application over all accounts (scope 'application')
WITH weekly AS (
    SELECT
        'account' AS scope,
        week_start,
        account_id,
        application,
        clicks
    FROM core.usage_grid
    WHERE is_complete AND contract_days = 7
    UNION ALL
    SELECT
        'application' AS scope,
        week_start,
        CAST(NULL AS VARCHAR) AS account_id,
        application,
        -- per pair, so that accounts that come or go move nothing
        1000 * avg(clicks) AS clicks
    FROM core.usage_grid
    WHERE is_complete AND contract_days = 7
    GROUP BY week_start, application
    HAVING count(*) >= 20
),

compared AS (
    SELECT
        *,
        median(clicks) OVER history AS usual_clicks,
        mad(clicks) OVER history AS deviation,
        count(*) OVER history AS weeks_before
    FROM weekly
    WINDOW history AS (
        PARTITION BY scope, account_id, application
        ORDER BY week_start
        ROWS BETWEEN $history_weeks PRECEDING AND 1 PRECEDING
    )
),

scored AS (
    SELECT
        *,
        clicks - usual_clicks AS change_clicks,
        -- 1.4826 makes the median deviation a standard deviation for normal data; counts vary at least by their root
        (clicks - usual_clicks) / greatest(
            1.4826 * deviation,
            CASE WHEN scope = 'account' THEN sqrt(greatest(usual_clicks, 1)) ELSE 0.05 * usual_clicks END
        ) AS robust_z
    FROM compared
    WHERE weeks_before >= $minimum_weeks AND usual_clicks IS NOT NULL
)

SELECT
    scope,
    week_start,
    account_id,
    application,
    CASE WHEN scope = 'account' THEN clicks ELSE clicks / 1000 END AS clicks,
    CASE WHEN scope = 'account' THEN usual_clicks ELSE usual_clicks / 1000 END AS usual_clicks,
    CASE WHEN scope = 'account' THEN change_clicks ELSE change_clicks / 1000 END AS change_clicks,
    change_clicks / nullif(usual_clicks, 0) AS change_share,
    robust_z,
    CASE WHEN change_clicks > 0 THEN 'spike' ELSE 'drop-off' END AS direction
FROM scored
WHERE
    abs(robust_z) >= $robust_z
    AND (
        (
            scope = 'account'
            AND abs(change_clicks) >= $absolute_floor_clicks
            AND abs(change_clicks) >= $relative_floor * usual_clicks
        )
        OR (scope = 'application' AND abs(change_clicks) >= 0.25 * usual_clicks)
    )
ORDER BY week_start, scope, application, account_id
