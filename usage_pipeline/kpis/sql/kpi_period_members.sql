-- grain: month (or week) x period that it lies in
SELECT
    steps.nth,
    periods.period_no,
    periods.last_nth
FROM core.kpi_base_periods AS steps
INNER JOIN core.kpi_periods AS periods
    ON steps.calendar = periods.calendar AND steps.nth BETWEEN periods.first_nth AND periods.last_nth
WHERE steps.calendar = $calendar
