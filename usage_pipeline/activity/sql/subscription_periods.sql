-- grain: account x application x subscription period: an unbroken run of subscribed days, nearly touching rows merged
WITH dated AS (
    -- a row that ended before it began was never subscribed; `account_subscriptions` tells of it
    SELECT
        account_id,
        application,
        start_date,
        coalesce(end_date, DATE '9999-12-31') AS end_date,
        notice_date,
        end_reason,
        renewal_date
    FROM ref.subscriptions
    WHERE end_date IS NULL OR end_date >= start_date
),

reached AS (
    SELECT
        *,
        max(end_date) OVER (
            PARTITION BY account_id, application
            ORDER BY start_date, end_date
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS reached_until
    FROM dated
),

islands AS (
    SELECT
        *,
        count(*) FILTER (WHERE reached_until IS NULL OR start_date - reached_until - 1 >= $renewal_gap_days) OVER (
            PARTITION BY account_id, application ORDER BY start_date, end_date
        ) AS island
    FROM reached
),

runs AS (
    SELECT
        account_id,
        application,
        min(start_date) AS start_date,
        max(end_date) AS end_date,
        -- what is said of an end and a notice is what the row that reaches furthest says; the rest of the key only
        -- settles ties, so that the order of rows means nothing. What it is worth: `subscription_terms`
        arg_max(
            struct_pack(
                notice_date := notice_date,
                end_reason := end_reason,
                renewal_date := renewal_date
            ),
            (
                end_date,
                start_date,
                coalesce(notice_date, DATE '9999-12-31'),
                coalesce(end_reason, ''),
                coalesce(renewal_date, DATE '9999-12-31')
            )
        ) AS told
    FROM islands
    GROUP BY account_id, application, island
),

told_runs AS (
    SELECT
        account_id,
        application,
        start_date,
        end_date,
        told.notice_date AS notice_date,
        told.end_reason AS end_reason,
        told.renewal_date AS renewal_date
    FROM runs
),

account_runs AS (
    SELECT *
    FROM told_runs
    WHERE application IS NULL
),

application_runs AS (
    SELECT *
    FROM told_runs
    WHERE application IS NOT NULL
),

has_account_rows AS (
    SELECT DISTINCT account_id FROM ref.subscriptions
    WHERE application IS NULL
),

has_application_rows AS (
    SELECT DISTINCT account_id FROM ref.subscriptions
    WHERE application IS NOT NULL
),

first_use AS (
    SELECT
        account_id,
        application,
        min(first_day) AS first_day
    FROM core.weekly_usage
    GROUP BY account_id, application
),

subscription_periods AS (
    -- application rows, capped by the account's own rows where it has any
    SELECT
        own.account_id,
        own.application,
        'application' AS basis,
        greatest(own.start_date, coalesce(cap.start_date, own.start_date)) AS start_date,
        least(own.end_date, coalesce(cap.end_date, own.end_date)) AS end_date,
        CASE WHEN cap.end_date < own.end_date THEN cap.notice_date ELSE coalesce(own.notice_date, cap.notice_date) END
            AS notice_date,
        CASE WHEN cap.end_date < own.end_date THEN cap.end_reason ELSE own.end_reason END AS end_reason,
        CASE WHEN cap.end_date <= own.end_date THEN 'account' ELSE 'application' END AS ended_with,
        coalesce(own.renewal_date, cap.renewal_date) AS renewal_date
    FROM application_runs AS own
    LEFT JOIN has_account_rows ON own.account_id = has_account_rows.account_id
    LEFT JOIN account_runs AS cap
        ON own.account_id = cap.account_id AND own.start_date <= cap.end_date AND own.end_date >= cap.start_date
    WHERE has_account_rows.account_id IS NULL OR cap.account_id IS NOT NULL
    UNION ALL
    -- account rows alone: what the account ever used, from first use on
    SELECT
        cap.account_id,
        first_use.application,
        'account' AS basis,
        greatest(cap.start_date, first_use.first_day) AS start_date,
        cap.end_date,
        cap.notice_date,
        cap.end_reason,
        'account' AS ended_with,
        cap.renewal_date
    FROM account_runs AS cap
    INNER JOIN first_use ON cap.account_id = first_use.account_id AND cap.end_date >= first_use.first_day
    WHERE cap.account_id NOT IN (SELECT account_id FROM has_application_rows)
    UNION ALL
    -- nothing known of subscriptions: from first use on, without an end
    SELECT
        first_use.account_id,
        first_use.application,
        'usage' AS basis,
        first_use.first_day AS start_date,
        DATE '9999-12-31' AS end_date,
        CAST(NULL AS DATE) AS notice_date,
        CAST(NULL AS VARCHAR) AS end_reason,
        'application' AS ended_with,
        CAST(NULL AS DATE) AS renewal_date
    FROM first_use
    WHERE
        first_use.account_id NOT IN (SELECT account_id FROM has_account_rows)
        AND first_use.account_id NOT IN (SELECT account_id FROM has_application_rows)
        -- what is known of it could not be read: that it is used makes no subscription
        AND first_use.account_id NOT IN (SELECT coalesce(account_id, '') FROM ref.subscriptions_rejected)
)

SELECT
    account_id,
    application,
    CAST(row_number() OVER (PARTITION BY account_id, application ORDER BY start_date) AS INTEGER) AS period_number,
    basis,
    start_date,
    end_date,
    notice_date,
    end_reason,
    ended_with,
    renewal_date
FROM subscription_periods
ORDER BY account_id, application, start_date
