-- grain: account x application (none: the account as a whole) x subscription, every one: its state on the day of as_of
WITH subscriptions AS (
    SELECT
        periods.account_id,
        periods.application,
        periods.period_number,
        periods.basis,
        periods.start_date,
        periods.end_date,
        periods.notice_date,
        periods.end_reason,
        periods.ended_with,
        periods.renewal_date,
        -- what holds on as_of, not what a row to come will say; of a period that ended what held last
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
        CAST(
            row_number() OVER (
                PARTITION BY account_id ORDER BY start_date, end_date, annual_value, seats, notice_date, end_reason
            ) AS INTEGER
        ) AS period_number,
        'account' AS basis,
        start_date,
        coalesce(end_date, DATE '9999-12-31') AS end_date,
        notice_date,
        end_reason,
        'account' AS ended_with,
        renewal_date,
        seats,
        annual_value
    FROM ref.subscriptions
    WHERE application IS NULL AND (end_date IS NULL OR end_date >= start_date)
)

SELECT
    *,
    -- a cancellation that was delivered before its day is a notice whose date nobody gave
    coalesce(end_reason = 'cancelled' AND end_date < DATE '9999-12-31', FALSE) AS is_cancelled,
    CASE
        WHEN start_date > CAST($as_of_day AS DATE) THEN 'not started'
        WHEN end_date < CAST($as_of_day AS DATE) THEN 'ended'
        WHEN notice_date <= CAST($as_of_day AS DATE) OR is_cancelled THEN 'notice received'
        ELSE 'active subscription'
    END AS subscription_state
FROM subscriptions
ORDER BY account_id, application, period_number
