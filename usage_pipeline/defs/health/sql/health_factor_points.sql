-- grain: account x application (or the account as a whole) x factor that is known, or a notice, of now: points
WITH newest AS (SELECT max(as_of_week) AS as_of_week FROM core.health_scores),

factors AS (
    SELECT
        factors.account_id,
        factors.application,
        factors.factor,
        factors.measured,
        factors.factor_score,
        factors.weight / sum(factors.weight) OVER (PARTITION BY factors.account_id, factors.application) AS weight_share
    FROM core.health_factors AS factors
    INNER JOIN newest ON factors.as_of_week = newest.as_of_week
    WHERE factors.measured IS NOT NULL
),

-- what a notice takes away from what the factors add up to
notices AS (
    SELECT
        factors.account_id,
        factors.application,
        'notice' AS factor,
        CAST(NULL AS DOUBLE) AS measured,
        CAST($health_notice_score AS DOUBLE) AS factor_score,
        CAST(0 AS DOUBLE) AS weight_share,
        $health_notice_score - sum(factors.weight_share * factors.factor_score) AS points
    FROM factors
    INNER JOIN newest ON TRUE
    INNER JOIN core.health_scores AS scores
        ON
            newest.as_of_week = scores.as_of_week
            AND factors.account_id = scores.account_id
            AND factors.application IS NOT DISTINCT FROM scores.application
    WHERE scores.has_notice AND scores.health IS NOT NULL
    GROUP BY factors.account_id, factors.application
    HAVING sum(factors.weight_share * factors.factor_score) > $health_notice_score
),

parts AS (
    SELECT
        *,
        weight_share * factor_score AS points,
        weight_share * (100 - factor_score) AS points_missing
    FROM factors
    UNION ALL
    SELECT
        *,
        -points AS points_missing
    FROM notices
)

SELECT
    names.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    factors.factor,
    CASE factors.factor
        WHEN 'adoption'
            THEN
                format(
                    $text__health__factor__adoption,
                    coalesce(inputs.active_applications, 0),
                    coalesce(inputs.applications, 0)
                )
        WHEN 'use' THEN format($text__health__factor__use, format('{:.0f}', 100 * factors.measured))
        WHEN 'users'
            THEN
                format(
                    $text__health__factor__users,
                    inputs.active_users,
                    translate(format('{:.1f}', inputs.usual_users), ',.', $separators)
                )
        WHEN 'seats'
            THEN
                format(
                    $text__health__factor__seats, CAST(inputs.seats_used AS BIGINT), CAST(inputs.seats AS BIGINT)
                )
        WHEN 'recency'
            THEN
                CASE
                    WHEN factors.measured = 0 THEN $text__health__factor__active
                    WHEN factors.measured = 1 THEN $text__health__factor__one_week
                    ELSE format($text__health__factor__weeks, CAST(factors.measured AS BIGINT))
                END
        WHEN 'notice' THEN format($text__health__factor__notice, format('{:g}', factors.factor_score))
        WHEN 'breadth' THEN format($text__health__factor__breadth, format('{:.0f}', 100 * factors.measured))
        ELSE format($text__health__factor__depth, format('{:.0f}', 100 * factors.measured))
    END AS measured_text,
    round(factors.factor_score) AS factor_score,
    factors.weight_share,
    factors.points,
    factors.points_missing
FROM parts AS factors
INNER JOIN newest ON TRUE
INNER JOIN core.health_inputs AS inputs
    ON
        newest.as_of_week = inputs.as_of_week
        AND factors.account_id = inputs.account_id
        AND factors.application IS NOT DISTINCT FROM inputs.application
INNER JOIN core.account_names AS names ON factors.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON factors.application = applications.application_key
ORDER BY names.account, application, points_missing DESC
