-- grain: week (the newest complete one, and the one before as it was shown) x account: what tiles say of it as a whole
WITH weeks AS (
    SELECT DISTINCT
        as_of_week,
        as_of_week = max(as_of_week) OVER () AS is_newest_week
    FROM shown_accounts
),

shown AS (
    SELECT
        accounts.*,
        health.health,
        users.seat_utilization * users.seats AS seats_taken,
        CASE WHEN users.seat_utilization IS NOT NULL THEN users.seats END AS seats_known
    FROM shown_accounts AS accounts
    LEFT JOIN shown_health AS health
        ON
            accounts.as_of_week = health.as_of_week
            AND accounts.account_id = health.account_id
            AND health.application_key = 'all'
    LEFT JOIN shown_users AS users
        ON
            accounts.as_of_week = users.as_of_week
            AND accounts.account_id = users.account_id
            AND users.application_key = 'all'
),

renewing AS (
    SELECT
        as_of_week,
        account_id,
        sum(arr_renewing) AS arr_renewing_soon
    FROM shown_renewals
    WHERE days_to_renewal <= 30
    GROUP BY as_of_week, account_id
),

delivered AS (SELECT count(annual_value) > 0 AS has_value FROM mart.accounts_summary)

SELECT
    CAST(weeks.as_of_week AS TIMESTAMP) AS as_of_week,
    weeks.is_newest_week,
    accounts.account_id,
    accounts.account,
    accounts.segment,
    accounts.region,
    accounts.owner,
    -- a week before without a figure now would be taken for the figure of now
    CASE WHEN newest.applications_owned > 0 THEN shown.applications_owned END AS applications_owned,
    CASE WHEN newest.applications_owned > 0 THEN shown.applications_used END AS applications_used,
    CASE WHEN newest.annual_value IS NOT NULL THEN shown.annual_value END AS annual_value,
    CASE WHEN newest.health IS NOT NULL THEN shown.health END AS health,
    CASE WHEN newest.seats_known IS NOT NULL THEN shown.seats_taken END AS seats_taken,
    CASE WHEN newest.seats_known IS NOT NULL THEN shown.seats_known END AS seats_known,
    CASE WHEN delivered.has_value THEN coalesce(renewing.arr_renewing_soon, 0) END AS arr_renewing_soon
FROM mart.accounts_summary AS accounts
CROSS JOIN weeks
CROSS JOIN delivered
LEFT JOIN shown ON accounts.account_id = shown.account_id AND weeks.as_of_week = shown.as_of_week
LEFT JOIN shown AS newest
    ON
        accounts.account_id = newest.account_id
        AND newest.as_of_week = (SELECT max(as_of_week) FROM shown_accounts)
LEFT JOIN renewing ON accounts.account_id = renewing.account_id AND weeks.as_of_week = renewing.as_of_week
ORDER BY weeks.as_of_week, accounts.account_id
