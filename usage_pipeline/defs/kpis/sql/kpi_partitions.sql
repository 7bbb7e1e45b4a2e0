-- grain: KPI x period x kind of entity whose values do not add up to that of all accounts
-- subscriptions about whole accounts belong to no application: sums over applications lack them
WITH of_whole_accounts AS (
    SELECT
        account_level.kpi,
        periods.period AS kpi_period,
        CAST(periods.reference_day AS TIMESTAMP) AS reference_month,
        account_level.value
    FROM core.kpi_account_level AS account_level
    INNER JOIN core.kpi_periods AS periods
        ON account_level.calendar = periods.calendar AND account_level.nth = periods.last_nth
),

sums AS (
    SELECT
        kpi,
        kpi_period,
        reference_month,
        entity_type,
        sum(value) AS value
    FROM mart.kpi_report
    WHERE
        kpi IN (SELECT unnest($titles))
        AND entity_type IN ('all', 'account', 'segment', 'region', 'CSM', 'application', 'application type')
    GROUP BY ALL
)

SELECT
    parts.kpi,
    parts.kpi_period,
    parts.reference_month,
    parts.entity_type,
    parts.value AS sum_of_parts,
    coalesce(of_whole_accounts.value, 0) AS value_of_whole_accounts,
    wholes.value AS value_of_all
FROM sums AS parts
INNER JOIN sums AS wholes
    ON
        parts.kpi = wholes.kpi
        AND parts.kpi_period = wholes.kpi_period
        AND parts.reference_month = wholes.reference_month
LEFT JOIN of_whole_accounts
    ON
        parts.kpi = of_whole_accounts.kpi
        AND parts.kpi_period = of_whole_accounts.kpi_period
        AND parts.reference_month = of_whole_accounts.reference_month
        AND parts.entity_type IN ('application', 'application type')
WHERE
    wholes.entity_type = 'all'
    -- money is summed to a hundredth of a cent
    AND abs(coalesce(parts.value, 0) + coalesce(of_whole_accounts.value, 0) - coalesce(wholes.value, 0)) > 0.01
ORDER BY ALL
