-- grain: a user who came in the months and weeks that are counted; a user is one of an account
SELECT
    CAST(row_number() OVER (ORDER BY account_id, user_id) AS INTEGER) AS user_no,
    account_id,
    user_id
FROM (
    SELECT
        users.account_id,
        users.user_id
    FROM core.monthly_users AS users
    SEMI JOIN kpi_steps AS steps ON steps.calendar = 'month' AND users.month_start = steps.first_day
    WHERE users.user_id IS NOT NULL
    UNION
    SELECT
        users.account_id,
        users.user_id
    FROM core.weekly_users AS users
    SEMI JOIN kpi_steps AS steps ON steps.calendar = 'week' AND users.week_start = steps.first_day
    WHERE users.user_id IS NOT NULL
) AS known
