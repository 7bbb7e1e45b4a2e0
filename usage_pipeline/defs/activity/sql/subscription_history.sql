-- grain: account x application (or the account as a whole) x contract, in order: every one, ended ones too
WITH contracts AS (
    SELECT
        account_id,
        application,
        period_number,
        start_date,
        notice_date,
        end_date,
        end_reason,
        renewal_date,
        seats,
        annual_value
    FROM core.subscription_periods
    UNION ALL
    -- contracts about the whole account run side by side, each with its own seats and value: none is merged
    SELECT
        account_id,
        NULL AS application,
        row_number() OVER (
            PARTITION BY account_id ORDER BY start_date, end_date, annual_value, seats
        ) AS period_number,
        start_date,
        notice_date,
        coalesce(end_date, DATE '9999-12-31') AS end_date,
        end_reason,
        renewal_date,
        seats,
        annual_value
    FROM ref.subscriptions
    WHERE application IS NULL AND (end_date IS NULL OR end_date >= start_date)
)

SELECT
    contracts.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    CAST(contracts.period_number AS INTEGER) AS period_number,
    CAST(contracts.start_date AS TIMESTAMP) AS start_date,
    CAST(contracts.notice_date AS TIMESTAMP) AS notice_date,
    CAST(nullif(contracts.end_date, DATE '9999-12-31') AS TIMESTAMP) AS end_date,
    contracts.end_reason,
    CASE
        WHEN contracts.start_date > CAST($as_of_day AS DATE) THEN 'not started'
        WHEN contracts.end_date < CAST($as_of_day AS DATE) THEN 'ended'
        WHEN contracts.notice_date <= CAST($as_of_day AS DATE) THEN 'notice received'
        ELSE 'in contract'
    END AS subscription_state,
    CAST(contracts.renewal_date AS TIMESTAMP) AS renewal_date,
    CAST(contracts.seats AS BIGINT) AS seats,
    contracts.annual_value
FROM contracts
INNER JOIN core.account_names AS names ON contracts.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON contracts.application = applications.application_key
ORDER BY names.account, application, contracts.period_number
