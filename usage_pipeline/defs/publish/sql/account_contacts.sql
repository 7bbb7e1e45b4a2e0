-- grain: a person in an account; personal data, published in a file of its own
WITH last_use AS (
    SELECT
        account_id,
        user_id,
        max(last_day) AS last_used_on
    FROM core.weekly_users
    GROUP BY account_id, user_id
)

SELECT
    contacts.account_id,
    names.account,
    names.segment,
    names.region,
    names.owner,
    contacts.user_id,
    contacts.name,
    contacts.email,
    contacts.phone,
    contacts.role,
    CASE WHEN contacts.is_primary THEN 'primary contact' ELSE '' END AS to_call,
    CAST(last_use.last_used_on AS TIMESTAMP) AS last_used_on
FROM personal.contacts AS contacts
INNER JOIN core.account_names AS names ON contacts.account_id = names.account_id
LEFT JOIN last_use ON contacts.account_id = last_use.account_id AND contacts.user_id = last_use.user_id
ORDER BY names.account, contacts.is_primary DESC, contacts.name
