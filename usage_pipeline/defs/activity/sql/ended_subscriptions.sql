-- grain: account x application whose subscription has ended: when, why, and how it was used before
SELECT
    account_applications.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    CAST(account_applications.start_date AS TIMESTAMP) AS start_date,
    CAST(account_applications.end_date AS TIMESTAMP) AS end_date,
    coalesce(account_applications.end_reason, 'not delivered') AS end_reason,
    CASE
        WHEN accounts.subscription_state IN ('ended', 'never started') THEN 'whole account' ELSE 'this application only'
    END AS what_ended,
    CAST(account_applications.last_used_on AS TIMESTAMP) AS last_used_on,
    account_applications.clicks_per_week_before_end,
    CAST(account_applications.clicks_outside_subscription AS BIGINT) AS clicks_outside_subscription,
    account_applications.annual_value
FROM core.account_application_states AS account_applications
INNER JOIN core.account_subscriptions AS accounts ON account_applications.account_id = accounts.account_id
INNER JOIN core.account_names AS names ON account_applications.account_id = names.account_id
INNER JOIN core.application_names AS applications ON account_applications.application = applications.application_key
WHERE account_applications.subscription_state = 'ended'
ORDER BY account_applications.end_date DESC
