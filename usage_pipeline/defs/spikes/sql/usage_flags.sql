-- a row: a flagged week of a pair (scope 'account') or of an application over all accounts (scope 'application')
WITH judged AS (
    SELECT
        grid.week_start,
        pairs.account_id,
        pairs.application,
        grid.clicks
    FROM core.usage_grid AS grid
    INNER JOIN core.pairs AS pairs ON grid.pair_id = pairs.pair_id
    WHERE grid.is_complete AND grid.contract_days = 7
),

-- what all accounts of the application did together in the week: a holiday is no event of every account
moves AS (
    SELECT
        week_start,
        application,
        avg(clicks) AS clicks_per_account,
        count(*) AS accounts
    FROM judged
    GROUP BY week_start, application
),

weekly AS (
    SELECT
        'account' AS scope,
        judged.week_start,
        judged.account_id,
        judged.application,
        judged.clicks,
        1 AS accounts,
        CASE WHEN moves.accounts >= 20 AND moves.clicks_per_account > 0 THEN moves.clicks_per_account ELSE 1 END AS pace
    FROM judged
    INNER JOIN moves ON judged.week_start = moves.week_start AND judged.application = moves.application
    UNION ALL
    SELECT
        'application' AS scope,
        week_start,
        CAST(NULL AS VARCHAR) AS account_id,
        application,
        clicks_per_account AS clicks,
        accounts,
        1 AS pace
    FROM moves
    WHERE accounts >= 20
),

compared AS (
    SELECT
        *,
        median(clicks / pace) OVER history * pace AS usual_clicks,
        mad(clicks / pace) OVER history * pace AS deviation,
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
    clicks,
    usual_clicks,
    change_clicks,
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
        -- of an application a quarter is much, if it is ten times as many clicks as of an account
        OR (
            scope = 'application'
            AND abs(change_clicks) * accounts >= 10 * $absolute_floor_clicks
            AND abs(change_clicks) >= 0.25 * usual_clicks
        )
    )
ORDER BY week_start, scope, application, account_id
