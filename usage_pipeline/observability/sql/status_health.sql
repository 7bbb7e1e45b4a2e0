-- grain: the state of everything, in a sentence, which also says where nothing has run for long
WITH silence AS (
    SELECT date_diff('day', last_run_at, CAST(now() AT TIME ZONE timezone AS TIMESTAMP)) AS days
    FROM written.clock
)

SELECT
    '<span style="font-size: 22px; line-height: 16px; color: '
    || CASE
        WHEN health.status_color = 'red' THEN '#c0392b'
        WHEN health.status_color = 'amber' OR silence.days > 8 THEN '#e08e0b'
        ELSE '#2e8b57'
    END
    || '">&#9679;</span>' AS status_color,
    -- every Monday something runs, whether there is anything new or not
    CASE
        WHEN silence.days > 8 AND health.status_color <> 'red' THEN format($text__status__silent, silence.days)
        ELSE health.summary
    END AS summary,
    health.health_sentence
    || CASE
        WHEN silence.days > 8
            THEN format($text__status__silent_sentence, silence.days)
        ELSE ''
    END AS health_sentence,
    health.data_through,
    health.as_of,
    health.build_id,
    health.shown_since,
    health.last_run_at,
    health.run_result,
    health.failure,
    health.checks_failed,
    health.checks_warning,
    health.files_quarantined,
    health.rows_rejected,
    health.weeks_wrong,
    health.written_at
FROM written.health AS health
CROSS JOIN silence
