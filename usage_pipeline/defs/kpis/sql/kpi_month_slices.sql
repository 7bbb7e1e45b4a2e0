-- grain: a complete month of the sheet
SELECT
    slice,
    concat_ws(' ', row_count, row_hashes) AS content
FROM meta.slices
WHERE
    name = 'mart.kpi_report'
    -- weeks that begin on the first of a month make it no month
    AND CAST(CAST(slice AS TIMESTAMP) AS DATE) IN (SELECT month_start FROM core.months)
