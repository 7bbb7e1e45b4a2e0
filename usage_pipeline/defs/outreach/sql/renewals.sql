-- grain: account x renewal date of the days ahead: what renews then, what it is worth, and what speaks against it
WITH owned AS (
    SELECT
        states.account_id,
        states.application,
        names.application AS application_name,
        states.renewal_date,
        states.annual_value,
        states.subscription_state = 'notice received' AS has_notice
    FROM core.account_application_states AS states
    INNER JOIN core.application_names AS names ON states.application = names.application_key
    WHERE
        states.subscription_state IN ('active subscription', 'notice received')
        AND states.renewal_date BETWEEN CAST($as_of_day AS DATE) AND CAST($as_of_day AS DATE) + $renewal_horizon_days
),

of_applications AS (
    SELECT
        account_id,
        renewal_date,
        count(*) AS applications,
        string_agg(application_name, ', ' ORDER BY annual_value DESC NULLS LAST, application_name) AS renewing,
        sum(annual_value) AS annual_value,
        bool_and(has_notice) AS has_notice
    FROM owned
    GROUP BY account_id, renewal_date
),

-- subscriptions about the whole account renew on a day of their own
of_accounts AS (
    SELECT
        account_id,
        CAST(renewal_date AS DATE) AS renewal_date,
        sum(annual_value) AS annual_value,
        bool_and(subscription_state = 'notice received') AS has_notice
    FROM mart.subscription_history
    WHERE
        application_key = 'all'
        AND subscription_state IN ('active subscription', 'notice received')
        AND CAST(renewal_date AS DATE)
        BETWEEN CAST($as_of_day AS DATE) AND CAST($as_of_day AS DATE) + $renewal_horizon_days
    GROUP BY account_id, CAST(renewal_date AS DATE)
),

renewals AS (
    SELECT
        coalesce(of_applications.account_id, of_accounts.account_id) AS account_id,
        coalesce(of_applications.renewal_date, of_accounts.renewal_date) AS renewal_date,
        coalesce(of_applications.applications, 0) AS applications,
        coalesce(of_applications.renewing, $text__renewal__whole_account)
        || CASE
            WHEN of_applications.account_id IS NOT NULL AND of_accounts.account_id IS NOT NULL
                THEN $text__renewal__and_whole_account
            ELSE ''
        END AS renewing,
        CASE
            WHEN of_applications.annual_value IS NOT NULL OR of_accounts.annual_value IS NOT NULL
                THEN round(coalesce(of_applications.annual_value, 0) + coalesce(of_accounts.annual_value, 0), 2)
        END AS arr_renewing,
        coalesce(of_applications.has_notice, TRUE) AND coalesce(of_accounts.has_notice, TRUE) AS has_notice,
        of_accounts.account_id IS NOT NULL AS is_of_account
    FROM of_applications
    FULL OUTER JOIN of_accounts
        ON
            of_applications.account_id = of_accounts.account_id
            AND of_applications.renewal_date = of_accounts.renewal_date
),

-- about the applications that renew, or about the account as a whole; all of them where the account itself renews
signs AS (
    SELECT
        renewals.account_id,
        renewals.renewal_date,
        string_agg(DISTINCT reasons.call_reason, ', ' ORDER BY reasons.call_reason) AS reasons,
        min(reasons.urgency_rank) AS urgency_rank
    FROM renewals
    INNER JOIN mart.call_reasons AS reasons
        ON renewals.account_id = reasons.account_id AND reasons.call_reason != 'upcoming renewal'
    WHERE
        reasons.application_key = 'all'
        OR renewals.is_of_account
        OR EXISTS (
            SELECT 1
            FROM owned
            WHERE
                owned.account_id = renewals.account_id
                AND owned.renewal_date = renewals.renewal_date
                AND owned.application = reasons.application_key
        )
    GROUP BY renewals.account_id, renewals.renewal_date
),

-- only where a model has earned its place
probabilities AS (
    SELECT
        owned.account_id,
        owned.renewal_date,
        max(scores.probability) AS churn_probability
    FROM owned
    INNER JOIN core.risk_scores AS scores
        ON
            owned.account_id = scores.account_id
            AND owned.application = scores.application
            AND scores.target = 'churn'
            AND scores.method = 'model'
    GROUP BY owned.account_id, owned.renewal_date
)

SELECT
    names.account_id,
    names.account,
    names.segment,
    names.region,
    names.owner,
    CAST(renewals.renewal_date AS TIMESTAMP) AS renewal_date,
    CAST(date_trunc('week', renewals.renewal_date) AS TIMESTAMP) AS renewal_week,
    renewals.renewal_date - CAST($as_of_day AS DATE) AS days_to_renewal,
    renewals.applications AS applications_renewing,
    renewals.renewing,
    renewals.arr_renewing,
    CASE WHEN renewals.has_notice THEN 'notice received' ELSE 'open' END AS renewal_status,
    health.health,
    coalesce(health.health_color, 'not known') AS health_color,
    CASE
        WHEN signs.urgency_rank IS NULL THEN 'no reason to call'
        ELSE ['Urgent', 'This week', 'Watch'][signs.urgency_rank]
    END AS renewal_priority,
    coalesce(signs.reasons, '') AS reasons,
    probabilities.churn_probability
FROM renewals
INNER JOIN core.account_names AS names ON renewals.account_id = names.account_id
LEFT JOIN mart.account_health AS health
    ON renewals.account_id = health.account_id AND health.application_key = 'all'
LEFT JOIN signs ON renewals.account_id = signs.account_id AND renewals.renewal_date = signs.renewal_date
LEFT JOIN probabilities
    ON renewals.account_id = probabilities.account_id AND renewals.renewal_date = probabilities.renewal_date
ORDER BY renewals.renewal_date, renewals.arr_renewing DESC NULLS LAST, names.account
