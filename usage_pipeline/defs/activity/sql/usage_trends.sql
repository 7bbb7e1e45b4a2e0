-- grain: account x application (or all applications of the account) subscribed in one of the last 13 complete weeks
WITH recent AS (
    SELECT week_start
    FROM core.weeks
    WHERE is_complete
    ORDER BY week_start DESC
    LIMIT 13
),

weekly AS (
    SELECT
        numbered.account_id,
        coalesce(numbered.application, 'all') AS application_key,
        subscribed.week_start,
        sum(subscribed.clicks) AS clicks
    FROM core.subscription_weeks AS subscribed
    INNER JOIN recent ON subscribed.week_start = recent.week_start
    INNER JOIN core.account_applications AS numbered
        ON subscribed.account_application_id = numbered.account_application_id
    GROUP BY numbered.account_id, subscribed.week_start, GROUPING SETS ((numbered.application), ())
),

subjects AS (
    SELECT
        account_id,
        application_key,
        max(clicks) AS most
    FROM weekly
    GROUP BY account_id, application_key
)

SELECT
    subjects.account_id,
    subjects.application_key,
    -- as high as the clicks against the most of these weeks; lowest where nobody came, a gap outside subscriptions
    string_agg(
        CASE
            WHEN weekly.clicks IS NULL THEN ' '
            WHEN weekly.clicks = 0 THEN '▁'
            ELSE substr('▂▃▄▅▆▇█', CAST(ceil(7 * weekly.clicks / subjects.most) AS INTEGER), 1)
        END, '' ORDER BY recent.week_start
    ) AS usage_trend
FROM subjects
CROSS JOIN recent
LEFT JOIN weekly
    ON
        subjects.account_id = weekly.account_id
        AND subjects.application_key = weekly.application_key
        AND recent.week_start = weekly.week_start
GROUP BY subjects.account_id, subjects.application_key
