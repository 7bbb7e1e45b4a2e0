-- grain: as-of week x account x application (none: of the whole account) subscribed on its Sunday: health, 0 to 100
WITH weighed AS (
    SELECT
        as_of_week,
        account_id,
        application,
        sum(weight * factor_score) / sum(weight) FILTER (WHERE measured IS NOT NULL) AS score,
        sum(weight) FILTER (WHERE measured IS NOT NULL) / sum(weight) AS known_share
    FROM core.health_factors
    GROUP BY as_of_week, account_id, application
)

SELECT
    inputs.as_of_week,
    inputs.account_id,
    inputs.application,
    inputs.basis,
    inputs.has_notice,
    inputs.is_unopened,
    weighed.known_share,
    -- who has given notice is in no good health, however much they use
    CASE
        WHEN weighed.known_share >= $health_known_share
            THEN round(least(weighed.score, CASE WHEN inputs.has_notice THEN $health_notice_score ELSE 100 END))
    END AS health,
    CASE
        WHEN health >= $health_green THEN 'green'
        WHEN health >= $health_amber THEN 'amber'
        WHEN health IS NOT NULL THEN 'red'
        ELSE 'not known'
    END AS health_color
FROM core.health_inputs AS inputs
LEFT JOIN weighed
    ON
        inputs.as_of_week = weighed.as_of_week
        AND inputs.account_id = weighed.account_id
        AND inputs.application IS NOT DISTINCT FROM weighed.application
