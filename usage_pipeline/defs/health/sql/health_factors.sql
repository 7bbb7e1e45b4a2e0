-- grain: as-of week x account x application (none: of the whole account) x factor that it could have: measured or not
WITH rules AS (
    SELECT
        rule['factor'] AS factor,
        rule['weight'] AS weight,
        rule['zero_at'] AS zero_at,
        rule['full_at'] AS full_at
    FROM (SELECT unnest($health_factors) AS rule) AS configured
),

measured AS (
    SELECT
        inputs.as_of_week,
        inputs.account_id,
        inputs.application,
        rules.factor,
        rules.weight,
        rules.zero_at,
        rules.full_at,
        CAST(
            CASE rules.factor
                WHEN 'adoption' THEN inputs.active_applications / nullif(inputs.applications, 0)
                WHEN 'use' THEN inputs.recent_clicks / inputs.usual_clicks
                WHEN 'users' THEN inputs.active_users / CASE WHEN inputs.usual_users >= 1 THEN inputs.usual_users END
                WHEN 'seats' THEN CASE WHEN inputs.are_users_known THEN inputs.seats_used / inputs.seats END
                WHEN 'recency' THEN inputs.weeks_without_use
                WHEN 'breadth'
                    THEN CASE WHEN inputs.are_users_known THEN inputs.clicks_of_others / inputs.usual_clicks END
                WHEN 'trend'
                    THEN
                        inputs.clicks_13_weeks
                        / CASE
                            WHEN inputs.clicks_13_weeks_before >= 13 * $low_floor_clicks
                                THEN inputs.clicks_13_weeks_before
                        END
            END AS DOUBLE
        ) AS measured
    FROM core.health_inputs AS inputs
    CROSS JOIN rules
    WHERE
        NOT inputs.is_unopened
        AND rules.weight > 0
        -- where applications were not bought by name, they are those ever used, and no part of them is adopted
        AND (rules.factor != 'adoption' OR (inputs.application IS NULL AND inputs.basis = 'application'))
)

SELECT
    as_of_week,
    account_id,
    application,
    factor,
    measured,
    weight,
    -- a straight line from the value that is worth nothing to the one that is worth everything
    CASE
        WHEN measured IS NOT NULL THEN 100 * greatest(0, least(1, (measured - zero_at) / (full_at - zero_at)))
    END AS factor_score
FROM measured
