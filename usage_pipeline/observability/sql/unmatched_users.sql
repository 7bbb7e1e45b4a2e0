-- grain: how many users of the facts in $files are no contact of their account in the build that is shown
WITH used AS (
    SELECT
        account_id,
        user_id,
        sum(clicks) AS clicks
    FROM read_parquet($files)
    WHERE user_id IS NOT NULL AND coalesce(day, week_start) <= CAST($as_of_day AS DATE)
    GROUP BY account_id, user_id
),

people AS (
    SELECT DISTINCT
        account_id,
        user_id
    FROM build.personal.account_contacts
),

judged AS (
    SELECT
        used.clicks,
        people.user_id IS NULL AS is_unknown
    FROM used
    LEFT JOIN people ON used.account_id = people.account_id AND used.user_id = people.user_id
)

SELECT
    count(*) AS users,
    count(*) FILTER (WHERE is_unknown) AS unknown,
    coalesce(sum(clicks) FILTER (WHERE is_unknown), 0) AS clicks,
    sum(clicks) FILTER (WHERE is_unknown) / sum(clicks) AS share
FROM judged
