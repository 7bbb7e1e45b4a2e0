-- grain: a target: which method is in force, why, on what it rests, and how many risks it lists
WITH counted AS (
    SELECT
        target,
        count(*) AS scored,
        count(*) FILTER (WHERE is_listed) AS listed,
        sum(probability) AS expected
    FROM core.risk_scores
    GROUP BY target
)

SELECT
    methods.target,
    methods.title AS risk,
    methods.definition,
    CASE methods.method
        WHEN 'model' THEN format($text__risk__method__model, $words__contestant[kinds.kind]) ELSE
            $text__risk__method__rule
    END AS method_in_force,
    CASE
        WHEN methods.has_signal THEN ''
        WHEN methods.lift IS NULL
            THEN $text__risk__nothing_happened
        ELSE
            format($text__risk__no_signal, translate(format('{:.1f}', methods.lift), ',.', $separators))
            || coalesce(
                format(
                    $text__risk__interval,
                    translate(format('{:.1f}', methods.lift_low), ',.', $separators),
                    translate(format('{:.1f}', methods.lift_high), ',.', $separators)
                ),
                ''
            )
            || format(
                $text__risk__asked_for,
                CAST(methods.positives AS VARCHAR),
                CAST($rule_lift AS VARCHAR),
                CAST($rule_events AS VARCHAR)
            )
    END
    || CASE
        WHEN methods.method = 'model'
            THEN
                format($text__risk__model, $words__contestant[kinds.kind])
        WHEN methods.target = 'low usage' THEN $text__risk__rule_of_low_usage
        ELSE $text__risk__rule_of_churn
    END
    || methods.why || '.'
    || CASE
        WHEN
            methods.method = 'rule'
            AND methods.probability_named IS NOT NULL
            AND methods.probability_of_others IS NOT NULL
            THEN
                format(
                    $text__risk__named_in_the_past,
                    round(100 * methods.probability_named, 1),
                    round(100 * methods.probability_of_others, 1)
                )
        ELSE ''
    END AS why,
    methods.horizon_days,
    CAST(methods.positives AS BIGINT) AS positives,
    CAST(methods.negatives AS BIGINT) AS negatives,
    methods.lift,
    methods.lift_low,
    methods.lift_high,
    methods.has_signal,
    methods.base_rate,
    CAST(methods.learned_from AS TIMESTAMP) AS learned_from,
    CAST(methods.learned_until AS TIMESTAMP) AS learned_until,
    methods.version,
    coalesce(counted.scored, 0) AS scored,
    coalesce(counted.listed, 0) AS listed,
    counted.expected
FROM core.risk_methods AS methods
LEFT JOIN counted ON methods.target = counted.target
LEFT JOIN (VALUES ('logistic', 'logistic regression'), ('boosting', 'gradient boosting')) AS kinds (name, kind)
    ON methods.kind = kinds.name
ORDER BY methods.target DESC
