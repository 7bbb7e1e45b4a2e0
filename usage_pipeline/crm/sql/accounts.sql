-- grain: one row per account of the build
SELECT
    accounts.account_id,
    accounts.account,
    accounts.subscription_state,
    CAST(round(health.health) AS BIGINT) AS health,
    health.health_color,
    calls.arr_at_risk,
    accounts.annual_value,
    CAST(accounts.renewal_date AS DATE) AS renewal_date,
    CAST(accounts.last_used_on AS DATE) AS last_used_on,
    calls.urgency,
    calls.call_reason
FROM mart.accounts_summary AS accounts
LEFT JOIN mart.account_health AS health
    ON accounts.account_id = health.account_id AND health.application_key = 'all'
LEFT JOIN mart.call_list AS calls
    ON accounts.account_id = calls.account_id
ORDER BY accounts.account_id
