-- grain: target x week of as-of whose outcome is known: what was said, as issued or in the back-test, and what came
WITH issued AS (
    SELECT
        scores.target,
        scores.as_of_week,
        count(*) AS scored,
        sum(scores.probability) AS expected,
        count(*) FILTER (WHERE outcomes.outcome) AS outcomes,
        count(*) FILTER (WHERE scores.is_listed) AS listed,
        count(*) FILTER (WHERE scores.is_listed AND outcomes.outcome) AS listed_outcomes
    FROM core.score_snapshots AS scores
    INNER JOIN core.snapshot_outcomes AS outcomes
        ON
            scores.target = outcomes.target
            AND scores.as_of_week = outcomes.as_of_week
            AND scores.account_id = outcomes.account_id
            AND scores.application IS NOT DISTINCT FROM outcomes.application
    -- what was said of another horizon cannot be judged by this one
    INNER JOIN core.risk_methods AS methods
        ON scores.target = methods.target AND scores.horizon_days = methods.horizon_days
    GROUP BY scores.target, scores.as_of_week
),

both_kinds AS (
    SELECT
        'as issued' AS basis,
        *
    FROM issued
    UNION ALL
    SELECT
        'back-test' AS basis,
        target,
        as_of_week,
        scored,
        expected,
        outcomes,
        listed,
        listed_outcomes
    FROM core.risk_said
)

SELECT
    both_kinds.basis,
    both_kinds.target,
    methods.title AS risk,
    CAST(both_kinds.as_of_week AS TIMESTAMP) AS as_of_week,
    CAST(both_kinds.scored AS BIGINT) AS scored,
    nullif(both_kinds.expected, 'NaN'::DOUBLE) AS expected,
    CAST(both_kinds.outcomes AS BIGINT) AS outcomes,
    CAST(both_kinds.listed AS BIGINT) AS listed,
    CAST(both_kinds.listed_outcomes AS BIGINT) AS listed_outcomes
FROM both_kinds
INNER JOIN core.risk_methods AS methods ON both_kinds.target = methods.target
ORDER BY both_kinds.basis, both_kinds.target, both_kinds.as_of_week
