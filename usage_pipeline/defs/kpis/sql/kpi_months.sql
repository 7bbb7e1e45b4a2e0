-- a row: KPI x entity x complete month, for lines over time
SELECT
    kpi,
    kpi_group,
    kpi_unit,
    entity_type,
    entity_key,
    entity,
    entity_group,
    reference_month AS month_start,
    value
FROM mart.kpi_sheet
WHERE kpi_period = 'month' AND is_complete_period
