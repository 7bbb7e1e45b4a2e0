-- a row: user x application x week of use; the user is an opaque number, good only for counting different people
SELECT
    CAST(users.week_start AS TIMESTAMP) AS week_start,
    users.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    dense_rank() OVER (ORDER BY users.account_id, users.user_id) AS user_key,
    weeks.is_complete,
    weeks.is_running
FROM core.weekly_users AS users
INNER JOIN core.weeks AS weeks ON users.week_start = weeks.week_start
INNER JOIN core.account_names AS names ON users.account_id = names.account_id
INNER JOIN core.application_names AS applications ON users.application = applications.application_key
WHERE users.user_id IS NOT NULL
ORDER BY users.week_start, users.application
