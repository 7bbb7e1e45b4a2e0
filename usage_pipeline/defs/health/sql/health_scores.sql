-- grain: as-of week x account x application (none: of the whole account) subscribed on its Sunday: health, 0 to 100
WITH weighed AS (
    SELECT
        as_of_week,
        account_id,
        application,
        sum(weight * factor_score) / sum(weight) AS score,
        sum(weight) AS known_weight
    FROM core.health_factors
    GROUP BY as_of_week, account_id, application
),

-- what a subscription could be weighed by at most; adoption is of accounts alone
rules AS (
    SELECT
        sum(rule['weight']) AS of_account,
        sum(rule['weight']) FILTER (WHERE rule['factor'] != 'adoption') AS of_application
    FROM (SELECT unnest($health_factors) AS rule) AS configured
)

SELECT
    inputs.as_of_week,
    inputs.account_id,
    inputs.application,
    inputs.basis,
    inputs.has_notice,
    inputs.is_unopened,
    weighed.known_weight
    / CASE WHEN inputs.application IS NULL THEN rules.of_account ELSE rules.of_application END AS known_share,
    -- who has given notice is in no good health, however much they use
    CASE
        WHEN known_share >= $health_known_share
            THEN round(least(weighed.score, CASE WHEN inputs.has_notice THEN $health_notice_score ELSE 100 END))
    END AS health,
    CASE
        WHEN health >= $health_green THEN 'green'
        WHEN health >= $health_amber THEN 'amber'
        WHEN health IS NOT NULL THEN 'red'
        ELSE 'not known'
    END AS health_color
FROM core.health_inputs AS inputs
CROSS JOIN rules
LEFT JOIN weighed
    ON
        inputs.as_of_week = weighed.as_of_week
        AND inputs.account_id = weighed.account_id
        AND inputs.application IS NOT DISTINCT FROM weighed.application
