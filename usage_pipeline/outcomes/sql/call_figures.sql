-- grain: week (that of the list now, and the one before as it was issued) x account, on the list or not
WITH newest AS (SELECT newest_week AS as_of_week FROM shown.mart.build),

-- the list of now is the one that pages show, with what became of it since
listed AS (
    SELECT
        newest.as_of_week,
        calls.account_id,
        calls.urgency,
        calls.news,
        calls.arr_at_risk,
        calls.call_status
    FROM outcomes.call_status AS calls
    CROSS JOIN newest
    UNION ALL
    SELECT
        issued.as_of_week,
        issued.account_id,
        issued.urgency,
        issued.news,
        issued.arr_at_risk,
        before.call_status
    FROM shown.mart.call_list_history AS issued
    INNER JOIN before ON issued.account_id = before.account_id
    WHERE issued.as_of_week = $week
),

weeks AS (
    SELECT as_of_week FROM newest
    UNION
    SELECT as_of_week FROM listed
),

delivered AS (SELECT count(arr_at_risk) > 0 AS has_value FROM outcomes.call_status)

SELECT
    weeks.as_of_week,
    weeks.as_of_week = newest.as_of_week AS is_newest_week,
    accounts.account_id,
    accounts.account,
    accounts.segment,
    accounts.region,
    accounts.owner,
    listed.urgency,
    listed.news,
    CASE WHEN delivered.has_value THEN coalesce(listed.arr_at_risk, 0) END AS arr_at_risk,
    listed.call_status
FROM shown.mart.accounts_summary AS accounts
CROSS JOIN newest
CROSS JOIN delivered
CROSS JOIN weeks
LEFT JOIN listed ON accounts.account_id = listed.account_id AND weeks.as_of_week = listed.as_of_week
WHERE weeks.as_of_week IS NOT NULL
ORDER BY weeks.as_of_week, accounts.account_id
