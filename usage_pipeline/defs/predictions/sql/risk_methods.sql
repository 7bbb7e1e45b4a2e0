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
    CASE methods.method WHEN 'model' THEN 'model: ' || kinds.kind ELSE 'rule' END AS method_in_force,
    CASE
        WHEN methods.has_signal THEN ''
        WHEN methods.lift IS NULL
            THEN 'No signal yet, so nothing is listed: nothing has happened yet by which the rule could be judged. '
        ELSE
            'No signal yet, so nothing is listed: those that the rule named fared ' || format('{:.1f}', methods.lift)
            || ' times as badly as the others'
            || coalesce(
                ' (95 % interval ' || format('{:.1f}', methods.lift_low) || ' to '
                || format('{:.1f}', methods.lift_high) || ')',
                ''
            )
            || ', with ' || methods.positives || ' events; ' || $rule_lift || ' times, an interval above 1 and '
            || $rule_events || ' events are asked for. '
    END
    || CASE
        WHEN methods.method = 'model'
            THEN
                'A model (' || kinds.kind || ') says how likely it is. It is used because in back-tests it was better '
                || 'than every simple measure: '
        ELSE
            CASE
                WHEN methods.target = 'low usage'
                    THEN 'A rule, no model: the last 4 weeks are far below the 8 before. '
                ELSE 'A rule, no model: the last 4 weeks are far below the 8 before, or nobody came. '
            END
            || 'Why: '
    END
    || methods.why || '.'
    || CASE
        WHEN
            methods.method = 'rule'
            AND methods.probability_named IS NOT NULL
            AND methods.probability_of_others IS NOT NULL
            THEN
                ' Of those that the rule named in the past it happened to ' || round(100 * methods.probability_named, 1)
                || ' %, of the others to ' || round(100 * methods.probability_of_others, 1) || ' %.'
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
