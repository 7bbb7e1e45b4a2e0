-- grain: account x application (or the account as a whole) subscribed in the newest week: health, what holds it down
WITH newest AS (SELECT max(as_of_week) AS as_of_week FROM core.health_scores),

-- as it was issued the last time before this week
before AS (
    SELECT
        issued.account_id,
        issued.application_key,
        issued.health
    FROM core.issued_health AS issued
    INNER JOIN newest
        ON issued.as_of_week < newest.as_of_week AND issued.as_of_week + 35 >= newest.as_of_week
    QUALIFY issued.as_of_week = max(issued.as_of_week) OVER ()
),

factors AS (
    SELECT
        points.account_id,
        points.application_key,
        first(points.factor ORDER BY points.points_missing DESC, points.factor) AS biggest_factor,
        first(points.measured_text ORDER BY points.points_missing DESC, points.factor) AS biggest_text,
        max(points.points_missing) AS biggest_missing,
        -- weights and not their shares, which rounding would keep from adding up
        '('
        || string_agg(
            format(
                '{} {:.0f} x {:g}', $words__factor[points.factor], points.factor_score, CAST(weighed.weight AS DOUBLE)
            ),
            ' + '
            ORDER BY weighed.weight DESC, points.factor
        ) FILTER (WHERE points.factor != 'notice')
        || ') / ' || format('{:g}', CAST(sum(weighed.weight) AS DOUBLE))
        || coalesce('; ' || max(points.measured_text) FILTER (WHERE points.factor = 'notice'), '') AS arithmetic
    FROM mart.health_factor_points AS points
    INNER JOIN newest ON TRUE
    LEFT JOIN core.health_factors AS weighed
        ON
            newest.as_of_week = weighed.as_of_week
            AND points.account_id = weighed.account_id
            AND points.application_key = coalesce(weighed.application, 'all')
            AND points.factor = weighed.factor
    GROUP BY points.account_id, points.application_key
),

missing AS (
    SELECT
        factors.account_id,
        factors.application_key,
        string_agg(possible.factor, ', ' ORDER BY possible.factor) AS factors_not_known
    FROM core.health_factors AS possible
    INNER JOIN newest ON possible.as_of_week = newest.as_of_week
    INNER JOIN factors
        ON
            possible.account_id = factors.account_id
            AND coalesce(possible.application, 'all') = factors.application_key
    WHERE possible.measured IS NULL
    GROUP BY factors.account_id, factors.application_key
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
    scores.health,
    scores.health_color,
    before.health AS health_before,
    scores.health - before.health AS health_change,
    CASE WHEN scores.health IS NOT NULL AND factors.biggest_missing > 0 THEN factors.biggest_factor END
        AS biggest_factor,
    CASE
        WHEN scores.is_unopened THEN $text__health__too_new
        WHEN scores.health IS NULL THEN $text__health__too_little
        WHEN scores.has_notice THEN $text__health__notice
        WHEN factors.biggest_missing < 1 THEN $text__health__all_full
        ELSE
            format(
                $text__health__held_down,
                $words__factor[factors.biggest_factor],
                factors.biggest_text,
                CAST(round(factors.biggest_missing) AS INTEGER)
            )
    END
    || CASE
        WHEN scores.health - before.health >= 1
            THEN format($text__health__more, CAST(scores.health - before.health AS INTEGER))
        WHEN scores.health - before.health <= -1
            THEN format($text__health__less, CAST(before.health - scores.health AS INTEGER))
        ELSE ''
    END AS health_reason,
    CASE WHEN scores.health IS NOT NULL THEN factors.arithmetic END AS health_arithmetic,
    coalesce(missing.factors_not_known, '') AS factors_not_known
FROM core.health_scores AS scores
INNER JOIN newest ON scores.as_of_week = newest.as_of_week
INNER JOIN core.account_names AS names ON scores.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON scores.application = applications.application_key
LEFT JOIN factors
    ON
        scores.account_id = factors.account_id
        AND coalesce(scores.application, 'all') = factors.application_key
LEFT JOIN before
    ON
        scores.account_id = before.account_id
        AND coalesce(scores.application, 'all') = before.application_key
LEFT JOIN missing
    ON
        scores.account_id = missing.account_id
        AND coalesce(scores.application, 'all') = missing.application_key
ORDER BY names.account, application
