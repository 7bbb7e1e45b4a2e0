-- grain: account x application that was ever subscribed, and the number that stands for both in large tables
SELECT DISTINCT
    account_application_id,
    account_id,
    application
FROM core.subscription_periods
ORDER BY account_application_id
