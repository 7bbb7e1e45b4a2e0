-- grain: account x application x subscription with a full week: a series, in the order of their numbers
-- a subscription that comes back is a series of its own: nothing of the one before is usual for it
SELECT DISTINCT
    weeks.account_application_id,
    weeks.period_number,
    keys.account_id,
    keys.application,
    names.country,
    names.state
FROM core.subscription_weeks AS weeks
INNER JOIN core.account_applications AS keys ON weeks.account_application_id = keys.account_application_id
INNER JOIN core.account_names AS names ON keys.account_id = names.account_id
WHERE weeks.is_complete AND weeks.subscribed_days = 7
ORDER BY weeks.account_application_id, weeks.period_number
