-- a row: KPI x period x kind of entity whose values do not add up to that of all accounts
WITH sums AS (
    SELECT
        kpi,
        kpi_period,
        reference_month,
        entity_type,
        sum(value) AS value
    FROM mart.kpi_sheet
    WHERE
        kpi IN (SELECT unnest($titles))
        AND entity_type IN ('all', 'account', 'segment', 'region', 'owner', 'application', 'application type')
    GROUP BY ALL
)

SELECT
    parts.kpi,
    parts.kpi_period,
    parts.reference_month,
    parts.entity_type,
    parts.value AS sum_of_parts,
    wholes.value AS value_of_all
FROM sums AS parts
INNER JOIN sums AS wholes
    ON
        parts.kpi = wholes.kpi
        AND parts.kpi_period = wholes.kpi_period
        AND parts.reference_month = wholes.reference_month
WHERE
    wholes.entity_type = 'all'
    -- money is summed to a hundredth of a cent
    AND abs(coalesce(parts.value, 0) - coalesce(wholes.value, 0)) > 0.01
ORDER BY ALL
