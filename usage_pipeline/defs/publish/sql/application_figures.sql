-- grain: week (the newest complete one, and the one before as it was shown) x account x application that was subscribed
WITH weeks AS (
    SELECT DISTINCT
        as_of_week,
        as_of_week = max(as_of_week) OVER () AS is_newest_week
    FROM shown_accounts
),

risks AS (
    SELECT
        as_of_week,
        account_id,
        application_key,
        count(*) FILTER (WHERE target = 'low usage') AS low_usage_risks,
        count(*) FILTER (WHERE target = 'churn') AS churn_risks
    FROM shown_risks
    GROUP BY as_of_week, account_id, application_key
),

subscribed AS (
    SELECT *
    FROM shown_subscriptions
    WHERE subscription_state IN ('active subscription', 'notice received')
),

-- each in both weeks: one that is missing in the newest would leave the week before as the last that is known
account_applications AS (
    SELECT
        account_id,
        application_key
    FROM subscribed
    UNION
    SELECT
        account_id,
        application_key
    FROM risks
),

delivered AS (SELECT count(annual_value) > 0 AS has_value FROM mart.subscription_overview)

SELECT
    CAST(weeks.as_of_week AS TIMESTAMP) AS as_of_week,
    weeks.is_newest_week,
    names.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    subscribed.subscription_state,
    subscribed.usage_state,
    CASE WHEN delivered.has_value THEN coalesce(subscribed.annual_value, 0) END AS annual_value,
    coalesce(risks.low_usage_risks, 0) AS low_usage_risks,
    coalesce(risks.churn_risks, 0) AS churn_risks
FROM account_applications
CROSS JOIN weeks
CROSS JOIN delivered
INNER JOIN core.account_names AS names ON account_applications.account_id = names.account_id
LEFT JOIN core.application_names AS applications
    ON account_applications.application_key = applications.application_key
LEFT JOIN subscribed
    ON
        weeks.as_of_week = subscribed.as_of_week
        AND account_applications.account_id = subscribed.account_id
        AND account_applications.application_key = subscribed.application_key
LEFT JOIN risks
    ON
        weeks.as_of_week = risks.as_of_week
        AND account_applications.account_id = risks.account_id
        AND account_applications.application_key = risks.application_key
-- of an application that nobody names any more
WHERE applications.application_key IS NOT NULL OR account_applications.application_key = 'all'
ORDER BY weeks.as_of_week, names.account_id, application_key
