-- grain: entity x period, with its figures, those a year ago and those of the period before, in the order of the sheet
WITH entities AS (
    SELECT DISTINCT
        entity_no,
        entity_type,
        entity_key,
        entity,
        entity_group
    FROM core.kpi_members
)

SELECT
    own.entity_no,
    own.period_no,
    entities.entity_type,
    entities.entity_key,
    entities.entity,
    entities.entity_group,
    periods.period AS kpi_period,
    CAST(periods.reference_day AS TIMESTAMP) AS reference_month,
    CASE
        WHEN periods.period = 'week'
            THEN format($text__kpi_sheet__week_of, strftime(periods.reference_day, $date_format))
        WHEN periods.is_complete THEN strftime(periods.reference_day, $text__format__month)
        ELSE format($text__kpi_sheet__running, strftime(periods.reference_day, $text__format__month))
    END AS reference,
    CAST(periods.first_day AS TIMESTAMP) AS period_from,
    CAST(periods.last_day AS TIMESTAMP) AS period_to,
    periods.is_complete AS is_complete_period,
    coalesce($words__account[entities.entity], entities.entity) || ', '
    || CASE periods.period
        WHEN 'week' THEN format($text__kpi_sheet__week_of, strftime(periods.reference_day, $date_format))
        WHEN 'month' THEN strftime(periods.reference_day, $text__format__month)
        ELSE
            format(
                $text__kpi_sheet__period_to,
                $words__kpi_period[periods.period],
                strftime(periods.reference_day, $text__format__month)
            )
    END AS what,
    own AS own,
    year_ago AS year_ago,
    before AS before
FROM core.kpi_values AS own
INNER JOIN core.kpi_periods AS periods ON own.period_no = periods.period_no
SEMI JOIN kpi_months_due AS due ON periods.reference_day = due.reference_day
INNER JOIN entities ON own.entity_no = entities.entity_no
LEFT JOIN core.kpi_values AS year_ago
    ON own.entity_no = year_ago.entity_no AND periods.period_no_year_ago = year_ago.period_no
LEFT JOIN core.kpi_values AS before
    ON own.entity_no = before.entity_no AND periods.period_no_before = before.period_no
ORDER BY periods.place, entities.entity_type, periods.last_nth, entities.entity_no
