-- grain: KPI x entity x period x reference month (the month it ends with; of a week, its Monday)
WITH compared AS (
    SELECT
        *,
        value - value_year_ago AS difference,
        coalesce(
            abs(value - value_year_ago) >= greatest($floor, $share * abs(value_year_ago)), FALSE
        ) AS is_big_change
    FROM kpi_one
),

-- bars begin as far below the least of these periods as the most lies above it, but never below 0
scaled AS (
    SELECT
        *,
        max(value) OVER thirteen AS most,
        greatest(0, 2 * min(value) OVER thirteen - max(value) OVER thirteen) AS ground
    FROM kpi_history
    WINDOW thirteen AS (
        PARTITION BY entity_no, period ORDER BY last_nth
        RANGE BETWEEN 12 PRECEDING AND CURRENT ROW
    )
),

backwards AS (SELECT unnest(range(13)) AS periods),

trends AS (
    SELECT
        ends.entity_no,
        ends.period_no,
        string_agg(
            CASE
                WHEN steps.value IS NULL THEN ' '
                WHEN steps.value <= 0 THEN '▁'
                WHEN ends.most = ends.ground THEN '▅'
                ELSE
                    substr(
                        '▂▃▄▅▆▇█',
                        -- the most may come to a hair above 7
                        CAST(least(7, ceil(7 * (steps.value - ends.ground) / (ends.most - ends.ground))) AS INTEGER), 1
                    )
            END, '' ORDER BY backwards.periods DESC
        ) AS kpi_trend
    FROM scaled AS ends
    SEMI JOIN kpi_months_due AS due ON ends.reference_day = due.reference_day
    CROSS JOIN backwards
    LEFT JOIN kpi_history AS steps
        ON
            ends.entity_no = steps.entity_no
            AND ends.period = steps.period
            AND ends.last_nth - backwards.periods = steps.last_nth
    GROUP BY ends.entity_no, ends.period_no
)

SELECT
    $kpi AS kpi,
    CAST($kpi_rank AS INTEGER) AS kpi_rank,
    $kpi_group AS kpi_group,
    $unit AS kpi_unit,
    $number_format AS number_format,
    compared.entity_type,
    compared.entity_key,
    compared.entity,
    compared.entity_group,
    compared.kpi_period,
    compared.reference_month,
    compared.reference,
    compared.period_from,
    compared.period_to,
    compared.is_complete_period,
    compared.value,
    compared.value_year_ago,
    compared.value_before,
    compared.active_accounts,
    CASE WHEN $per_active_account THEN compared.value / nullif(compared.active_accounts, 0) END AS per_active_account,
    CASE
        WHEN compared.difference IS NULL THEN 'not compared'
        WHEN compared.difference = 0 THEN 'no change'
        WHEN $good = 'neither' THEN CASE WHEN compared.difference > 0 THEN 'higher' ELSE 'lower' END
        WHEN (compared.difference > 0) = ($good = 'up') THEN 'improved'
        ELSE 'declined'
    END AS change_is,
    compared.is_big_change,
    CASE
        WHEN compared.is_big_change
            THEN
                format(
                    $text__kpi_sheet__big_change,
                    $kpi,
                    compared.what,
                    kpi_shown(compared.value),
                    kpi_shown(compared.value_year_ago)
                )
                || coalesce(
                    ' (' || format('{:+.0f} %', 100 * compared.difference / nullif(compared.value_year_ago, 0)) || ')',
                    ''
                )
    END AS big_change,
    trends.kpi_trend
FROM compared
LEFT JOIN trends ON compared.entity_no = trends.entity_no AND compared.period_no = trends.period_no
