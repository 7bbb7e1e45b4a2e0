-- grain: KPI x entity x complete month, for lines over time
WITH entities AS (
    SELECT DISTINCT
        entity_no,
        entity_type,
        entity_key
    FROM core.kpi_members
)

SELECT
    sheet.kpi,
    sheet.kpi_rank,
    sheet.kpi_group,
    sheet.kpi_unit,
    sheet.entity_type,
    sheet.entity_key,
    entities.entity_no,
    sheet.entity,
    sheet.entity_group,
    sheet.reference_month AS month_start,
    sheet.value
FROM mart.kpi_report AS sheet
INNER JOIN entities ON sheet.entity_type = entities.entity_type AND sheet.entity_key = entities.entity_key
WHERE sheet.kpi_period = 'month' AND sheet.is_complete_period
ORDER BY sheet.kpi_rank, sheet.entity_type, month_start, entities.entity_no
