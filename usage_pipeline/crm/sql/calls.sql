-- grain: one row per account on the call list of the build
SELECT
    account_id,
    account,
    urgency,
    call_reason,
    reason_in_short,
    news,
    arr_at_risk,
    CAST(renewal_date AS DATE) AS renewal_date
FROM mart.call_list
ORDER BY account_id
