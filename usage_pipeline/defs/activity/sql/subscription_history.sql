-- grain: account x application (or the account as a whole) x subscription, in order: every one, ended ones too
SELECT
    subscriptions.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    subscriptions.period_number,
    CAST(subscriptions.start_date AS TIMESTAMP) AS start_date,
    CAST(subscriptions.notice_date AS TIMESTAMP) AS notice_date,
    CAST(nullif(subscriptions.end_date, DATE '9999-12-31') AS TIMESTAMP) AS end_date,
    subscriptions.end_reason,
    subscriptions.subscription_state,
    CAST(subscriptions.renewal_date AS TIMESTAMP) AS renewal_date,
    CAST(subscriptions.seats AS BIGINT) AS seats,
    subscriptions.annual_value
FROM core.subscription_states AS subscriptions
INNER JOIN core.account_names AS names ON subscriptions.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON subscriptions.application = applications.application_key
ORDER BY names.account, application, subscriptions.period_number
