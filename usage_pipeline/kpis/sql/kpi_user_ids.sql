-- grain: a user, who is one of an account
SELECT
    CAST(row_number() OVER (ORDER BY account_id, user_id) AS INTEGER) AS user_no,
    account_id,
    user_id
FROM (
    SELECT DISTINCT
        account_id,
        user_id
    FROM core.weekly_users
    WHERE user_id IS NOT NULL
) AS known
