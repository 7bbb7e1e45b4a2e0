-- grain: account x application x subscription x whole subscribed month since its start, until the subscription ends
WITH subscription_periods AS (
    SELECT
        subscription_periods.*,
        date_trunc('month', subscription_periods.start_date) AS start_month
    FROM core.subscription_periods AS subscription_periods
    -- an inferred subscription begins with its first use: it would be retained by definition
    WHERE
        subscription_periods.basis = 'application'
        AND subscription_periods.start_date >= (SELECT min(month_start) FROM core.months)
),

used AS (
    SELECT DISTINCT
        month_start,
        account_id,
        application
    FROM core.monthly_users
    WHERE clicks > 0
)

SELECT
    subscription_periods.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    subscription_periods.period_number,
    year(subscription_periods.start_date) || ' Q' || quarter(subscription_periods.start_date) AS cohort,
    CAST(date_diff('month', subscription_periods.start_month, months.month_start) AS INTEGER) AS months_since_start,
    CAST(months.month_start AS TIMESTAMP) AS month_start,
    used.account_id IS NOT NULL AS is_used
FROM subscription_periods
INNER JOIN core.months AS months
    ON
        subscription_periods.start_date <= months.month_start
        AND subscription_periods.end_date >= months.month_end
        AND months.is_complete
INNER JOIN core.account_names AS names ON subscription_periods.account_id = names.account_id
INNER JOIN core.application_names AS applications ON subscription_periods.application = applications.application_key
LEFT JOIN used
    ON
        months.month_start = used.month_start
        AND subscription_periods.account_id = used.account_id
        AND subscription_periods.application = used.application
ORDER BY cohort, names.account, applications.application, months_since_start
