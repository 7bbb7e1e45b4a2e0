-- grain: an account, and the state of its subscription as a whole on the day of as_of
WITH account_rows AS (
    SELECT
        account_id,
        start_date,
        coalesce(end_date, DATE '9999-12-31') AS end_date,
        end_reason,
        notice_date,
        coalesce(end_date < start_date, FALSE) AS never_started
    FROM ref.subscriptions
    WHERE application IS NULL
),

from_account_rows AS (
    SELECT
        account_id,
        bool_and(never_started) AS never_started,
        min(start_date) AS start_date,
        max(end_date) AS end_date,
        -- of those that end last together, what names a reason and an early notice
        arg_max(struct_pack(d := end_reason), (end_date, start_date, coalesce(end_reason, ''))).d AS end_reason,
        arg_max(
            struct_pack(d := notice_date), (end_date, start_date, -epoch(coalesce(notice_date, DATE '9999-12-31')))
        ).d AS notice_date,
        max(end_date) FILTER (WHERE start_date <= CAST($as_of_day AS DATE)) AS reached
    FROM account_rows
    GROUP BY account_id
),

from_periods AS (
    SELECT
        account_id,
        FALSE AS never_started,
        min(start_date) AS start_date,
        max(end_date) AS end_date,
        -- of those that end last together, what names a reason and an early notice
        arg_max(struct_pack(d := end_reason), (end_date, start_date, coalesce(end_reason, ''))).d AS end_reason,
        arg_max(
            struct_pack(d := notice_date), (end_date, start_date, -epoch(coalesce(notice_date, DATE '9999-12-31')))
        ).d AS notice_date,
        max(end_date) FILTER (WHERE start_date <= CAST($as_of_day AS DATE)) AS reached
    FROM core.subscription_periods
    WHERE account_id NOT IN (SELECT account_id FROM from_account_rows)
    GROUP BY account_id
),

-- subscriptions about the whole account: several can run side by side, and each is worth what it says
in_force AS (
    SELECT
        account_id,
        CAST(sum(seats) AS BIGINT) AS seats,
        CAST(sum(annual_value) AS DOUBLE) AS annual_value
    FROM core.subscription_terms
    WHERE application IS NULL AND CAST($as_of_day AS DATE) BETWEEN start_date AND end_date
    GROUP BY account_id
),

-- the account leaves where all that runs of it does: of its own rows where it has any, else of its applications
notices AS (
    SELECT
        account_id,
        application IS NULL AS is_of_account,
        bool_and(subscription_state = 'notice received') AS has_notice
    FROM core.subscription_states
    WHERE subscription_state IN ('active subscription', 'notice received')
    GROUP BY account_id, application IS NULL
),

renewals AS (
    SELECT
        account_id,
        min(renewal_date) AS renewal_date
    FROM ref.subscriptions
    WHERE
        application IS NULL
        AND start_date <= CAST($as_of_day AS DATE)
        AND coalesce(end_date, DATE '9999-12-31') >= CAST($as_of_day AS DATE)
        -- one that has passed is none that comes
        AND renewal_date >= CAST($as_of_day AS DATE)
    GROUP BY account_id
),

spans AS (
    SELECT
        *,
        TRUE AS is_of_account
    FROM from_account_rows
    UNION ALL
    SELECT
        *,
        FALSE AS is_of_account
    FROM from_periods
)

SELECT
    names.account_id,
    spans.start_date,
    nullif(spans.end_date, DATE '9999-12-31') AS end_date,
    spans.end_reason,
    spans.notice_date,
    names.account_id IN (SELECT account_id FROM ref.subscriptions) AS is_subscription_known,
    -- of the account's own rows alone; those of its applications stand with them
    in_force.seats,
    in_force.annual_value,
    renewals.renewal_date,
    CASE
        WHEN spans.account_id IS NULL THEN 'no subscription'
        WHEN spans.never_started THEN 'never started'
        WHEN spans.reached IS NULL THEN 'not started'
        WHEN spans.reached < CAST($as_of_day AS DATE) THEN 'ended'
        WHEN notices.has_notice THEN 'notice received'
        ELSE 'active subscription'
    END AS subscription_state
FROM core.account_names AS names
LEFT JOIN spans ON names.account_id = spans.account_id
LEFT JOIN notices ON spans.account_id = notices.account_id AND spans.is_of_account = notices.is_of_account
LEFT JOIN in_force ON names.account_id = in_force.account_id
LEFT JOIN renewals ON names.account_id = renewals.account_id
