-- grain: KPI x entity x period that ends with a closed month: as it was reported, and as it is computed now
WITH named AS (
    SELECT
        closed.* EXCLUDE (kpi),
        reasons.kpi,
        reasons.why,
        reasons.why_missing
    FROM kpi_closed AS closed
    INNER JOIN kpi_reasons AS reasons
        ON
            closed.kpi = reasons.kpi_then
            AND closed.reference_month = reasons.reference_month
            AND closed.kpi_period = reasons.kpi_period
            AND closed.entity_type = reasons.entity_type
),

months AS (
    SELECT
        reference_month,
        max(issued_as_of) AS closed_at
    FROM named
    GROUP BY reference_month
),

now AS (
    SELECT
        sheet.*,
        months.closed_at
    FROM mart.kpi_report AS sheet
    INNER JOIN months ON sheet.reference_month = months.reference_month
    WHERE sheet.kpi_period != 'week'
),

compared AS (
    SELECT
        coalesce(now.kpi, named.kpi) AS kpi,
        coalesce(now.kpi_rank, named.kpi_rank) AS kpi_rank,
        coalesce(now.kpi_group, named.kpi_group) AS kpi_group,
        coalesce(now.kpi_unit, named.kpi_unit) AS kpi_unit,
        coalesce(now.number_format, named.number_format) AS number_format,
        coalesce(now.entity_type, named.entity_type) AS entity_type,
        coalesce(now.entity_key, named.entity_key) AS entity_key,
        coalesce(now.entity, named.entity) AS entity,
        coalesce(now.entity_group, named.entity_group) AS entity_group,
        coalesce(now.kpi_period, named.kpi_period) AS kpi_period,
        coalesce(now.reference_month, named.reference_month) AS reference_month,
        coalesce(now.reference, named.reference) AS reference,
        coalesce(now.closed_at, named.issued_as_of) AS closed_at,
        named.value AS value_reported,
        named.value_year_ago AS year_ago_reported,
        now.value,
        coalesce(
            abs(now.value - named.value) > 1e-9 * greatest(1, abs(named.value)),
            (now.value IS NULL) != (named.value IS NULL)
        ) AS is_revised,
        CASE
            WHEN now.kpi IS NULL THEN 'no longer on the sheet: ' || named.why_missing
            WHEN named.kpi IS NULL THEN 'not on the sheet that was reported'
            WHEN now.value IS NULL OR named.value IS NULL THEN named.why_missing
            ELSE named.why
        END AS why
    FROM named
    FULL JOIN now
        ON
            named.kpi = now.kpi
            AND named.entity_type = now.entity_type
            AND named.entity_key = now.entity_key
            AND named.kpi_period = now.kpi_period
            AND named.reference_month = now.reference_month
)

SELECT
    * EXCLUDE (why),
    CASE WHEN is_revised THEN why END AS why_revised
FROM compared
ORDER BY kpi_rank, kpi_period, entity_type, reference_month, entity
