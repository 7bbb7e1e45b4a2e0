-- grain: a complete month whose clicks are not those of its days
WITH days AS (
    SELECT
        CAST(date_trunc('month', day) AS DATE) AS month_start,
        sum(clicks) AS clicks
    FROM core.account_days
    GROUP BY month_start
),

of_all AS (
    SELECT entity_no
    FROM core.kpi_members
    WHERE entity_type = 'all'
)

SELECT
    strftime(periods.reference_day, '%Y-%m') AS reference_month,
    sheet.clicks AS clicks_of_the_sheet,
    CAST(days.clicks AS BIGINT) AS clicks_of_the_days
FROM core.kpi_values AS sheet
INNER JOIN core.kpi_periods AS periods ON sheet.period_no = periods.period_no
SEMI JOIN of_all ON sheet.entity_no = of_all.entity_no
LEFT JOIN days ON periods.reference_day = days.month_start
WHERE periods.period = 'month' AND sheet.clicks IS DISTINCT FROM coalesce(days.clicks, 0)
ORDER BY reference_month
