-- grain: user x application x week of use; the user is an opaque number, good only for counting different people
WITH people AS (
    -- in the order of their first weeks: who comes later changes no number of those before
    SELECT
        account_id,
        user_id,
        row_number() OVER (ORDER BY min(week_start), account_id, user_id) AS user_key
    FROM core.weekly_users
    WHERE user_id IS NOT NULL
    GROUP BY account_id, user_id
)

SELECT
    CAST(users.week_start AS TIMESTAMP) AS week_start,
    names.account,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    people.user_key,
    weeks.is_complete,
    weeks.is_running
FROM core.weekly_users AS users
INNER JOIN people ON users.account_id = people.account_id AND users.user_id = people.user_id
INNER JOIN core.weeks AS weeks ON users.week_start = weeks.week_start
INNER JOIN core.account_names AS names ON users.account_id = names.account_id
INNER JOIN core.application_names AS applications ON users.application = applications.application_key
ORDER BY users.week_start
