-- grain: a reference month (or Monday) x period that ends with it x period whose values it reads: its own, those
-- that it is compared with, and the twelve before, which its bars show
SELECT
    CAST(CAST(periods.reference_day AS TIMESTAMP) AS VARCHAR) AS slice,
    'period ' || hash(periods) AS content
FROM core.kpi_periods AS periods
UNION ALL
SELECT
    CAST(CAST(periods.reference_day AS TIMESTAMP) AS VARCHAR) AS slice,
    concat_ws(' ', periods.period_no, slices.slice, slices.row_count, slices.row_hashes) AS content
FROM core.kpi_periods AS periods
INNER JOIN core.kpi_periods AS others
    ON
        periods.period = others.period
        AND (
            others.last_nth BETWEEN periods.last_nth - 12 AND periods.last_nth
            OR others.period_no IN (periods.period_no_year_ago, periods.period_no_before)
        )
INNER JOIN meta.slices AS slices
    ON slices.name = 'core.kpi_values' AND CAST(slices.slice AS INTEGER) = others.period_no
