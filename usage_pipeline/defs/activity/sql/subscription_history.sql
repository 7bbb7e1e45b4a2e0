-- grain: account x application (or the account as a whole) x subscription, in order: every one, ended ones too
WITH subscriptions AS (
    SELECT
        periods.account_id,
        periods.application,
        periods.period_number,
        periods.start_date,
        periods.notice_date,
        periods.end_date,
        periods.end_reason,
        periods.renewal_date,
        -- what holds on as_of; of a period that ended what held last
        terms.seats,
        CAST(terms.annual_value AS DOUBLE) AS annual_value
    FROM core.subscription_periods AS periods
    LEFT JOIN core.subscription_terms AS terms
        ON
            periods.account_id = terms.account_id
            AND periods.application = terms.application
            AND least(greatest(CAST($as_of_day AS DATE), periods.start_date), periods.end_date)
            BETWEEN terms.start_date AND terms.end_date
    UNION ALL
    -- subscriptions about the whole account run side by side, each with its own seats and value: none is merged
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
    subscriptions.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    CAST(subscriptions.period_number AS INTEGER) AS period_number,
    CAST(subscriptions.start_date AS TIMESTAMP) AS start_date,
    CAST(subscriptions.notice_date AS TIMESTAMP) AS notice_date,
    CAST(nullif(subscriptions.end_date, DATE '9999-12-31') AS TIMESTAMP) AS end_date,
    subscriptions.end_reason,
    CASE
        WHEN subscriptions.start_date > CAST($as_of_day AS DATE) THEN 'not started'
        WHEN subscriptions.end_date < CAST($as_of_day AS DATE) THEN 'ended'
        WHEN subscriptions.notice_date <= CAST($as_of_day AS DATE) THEN 'notice received'
        WHEN
            subscriptions.end_reason = 'cancelled' AND subscriptions.end_date < DATE '9999-12-31'
            THEN 'notice received'
        ELSE 'active subscription'
    END AS subscription_state,
    CAST(subscriptions.renewal_date AS TIMESTAMP) AS renewal_date,
    CAST(subscriptions.seats AS BIGINT) AS seats,
    subscriptions.annual_value
FROM subscriptions
INNER JOIN core.account_names AS names ON subscriptions.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON subscriptions.application = applications.application_key
ORDER BY names.account, application, subscriptions.period_number
