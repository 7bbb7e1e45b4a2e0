-- grain: target x back-test (or all of them) x contestant: how well it would have done
SELECT
    figures.target,
    figures.title AS risk,
    CASE
        WHEN figures.origin = 0 THEN 'all back-tests'
        ELSE
            figures.origin || ': ' || strftime(figures.first_week, $date_format) || ' to '
            || strftime(figures.last_week, $date_format)
    END AS backtest,
    figures.contestant
    || CASE WHEN figures.kind = '' OR figures.contestant = figures.kind THEN '' ELSE ' (' || figures.kind || ')' END
        AS contestant,
    CASE WHEN figures.is_in_force THEN 'in force' ELSE '' END AS in_force,
    CAST(figures.rows AS BIGINT) AS judged,
    CAST(figures.positives AS BIGINT) AS positives,
    figures.base_rate,
    figures.average_precision,
    figures.auc,
    figures.precision_at_20,
    figures.recall_at_20,
    figures.top_decile_lift,
    figures.brier,
    figures.calibration_error
FROM core.risk_figures AS figures
ORDER BY figures.target, figures.origin, figures.average_precision DESC
