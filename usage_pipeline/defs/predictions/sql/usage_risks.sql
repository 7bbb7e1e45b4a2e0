-- grain: a risk to look at: target x account x application (or all applications of the account), by probability
WITH subscriptions AS (
    SELECT
        account_id,
        application,
        annual_value,
        renewal_date
    FROM core.account_application_states
    WHERE subscription_state = 'active subscription'
    UNION ALL
    -- of the account also what its subscriptions about the whole account are worth
    SELECT
        states.account_id,
        NULL AS application,
        CASE
            WHEN count(states.annual_value) > 0 OR any_value(accounts.annual_value) IS NOT NULL
                THEN round(coalesce(sum(states.annual_value), 0) + coalesce(any_value(accounts.annual_value), 0), 2)
        END AS annual_value,
        least(min(states.renewal_date), any_value(accounts.renewal_date)) AS renewal_date
    FROM core.account_application_states AS states
    INNER JOIN core.account_subscriptions AS accounts ON states.account_id = accounts.account_id
    WHERE states.subscription_state = 'active subscription'
    GROUP BY states.account_id
),

-- the last week in which it was scored and not listed, as issued
breaks AS (
    SELECT
        target,
        account_id,
        application,
        max(as_of_week) FILTER (WHERE NOT is_listed) AS as_of_week
    FROM core.score_snapshots
    GROUP BY target, account_id, application
),

since AS (
    SELECT
        issued.target,
        issued.account_id,
        issued.application,
        min(issued.as_of_week) AS first_week
    FROM core.score_snapshots AS issued
    INNER JOIN breaks
        ON
            issued.target = breaks.target
            AND issued.account_id = breaks.account_id
            AND issued.application IS NOT DISTINCT FROM breaks.application
    WHERE issued.is_listed AND (breaks.as_of_week IS NULL OR issued.as_of_week > breaks.as_of_week)
    GROUP BY issued.target, issued.account_id, issued.application
)

SELECT
    scores.target,
    methods.title AS risk,
    scores.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    row_number() OVER (
        PARTITION BY scores.target
        -- what is worth most to save; by probability alone where no value is known
        ORDER BY
            scores.probability * subscriptions.annual_value DESC NULLS LAST,
            scores.strength DESC,
            scores.account_id,
            scores.application
    ) AS rank,
    scores.probability,
    scores.probability_text,
    scores.probability / nullif(scores.base_rate, 0) AS risk_lift,
    concat_ws('; ', nullif(scores.reason_1, ''), nullif(scores.reason_2, ''), nullif(scores.reason_3, '')) AS driver,
    scores.positive_signal,
    scores.clicks_recent AS recent_clicks,
    scores.clicks_usual AS usual_clicks,
    format(
        $text__risk__recent_of_usual,
        translate(format('{:,.1f}', scores.clicks_recent), ',.', $separators),
        translate(format('{:,.1f}', scores.clicks_usual), ',.', $separators)
    ) AS recent_of_usual,
    subscriptions.annual_value,
    scores.probability * subscriptions.annual_value AS value_at_risk,
    CAST(subscriptions.renewal_date AS TIMESTAMP) AS renewal_date,
    CASE
        WHEN subscriptions.renewal_date >= CAST($as_of_day AS DATE)
            THEN subscriptions.renewal_date - CAST($as_of_day AS DATE)
    END AS days_to_renewal,
    CAST(coalesce(since.first_week, scores.as_of_week) AS TIMESTAMP) AS listed_since,
    scores.method AS method_in_force,
    CAST(scores.as_of_week AS TIMESTAMP) AS as_of_week
FROM core.risk_scores AS scores
INNER JOIN core.risk_methods AS methods ON scores.target = methods.target
INNER JOIN core.account_names AS names ON scores.account_id = names.account_id
INNER JOIN subscriptions
    ON
        scores.account_id = subscriptions.account_id
        AND scores.application IS NOT DISTINCT FROM subscriptions.application
LEFT JOIN core.application_names AS applications ON scores.application = applications.application_key
LEFT JOIN since
    ON
        scores.target = since.target
        AND scores.account_id = since.account_id
        AND scores.application IS NOT DISTINCT FROM since.application
WHERE scores.is_listed
ORDER BY scores.target, rank
