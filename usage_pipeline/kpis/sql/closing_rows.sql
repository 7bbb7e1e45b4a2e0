-- grain: KPI x entity x period that ends with the month that is closed
SELECT
    kpi,
    kpi_rank,
    kpi_group,
    kpi_unit,
    number_format,
    entity_type,
    entity_key,
    entity,
    entity_group,
    kpi_period,
    reference_month,
    reference,
    period_from,
    period_to,
    value,
    value_year_ago
FROM mart.kpi_report
WHERE kpi_period != 'week' AND is_complete_period AND reference_month = $month
