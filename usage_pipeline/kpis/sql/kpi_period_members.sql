-- grain: month (or week) x period that it lies in
SELECT
    steps.nth,
    periods.period_no,
    periods.last_nth
FROM kpi_steps AS steps
INNER JOIN kpi_wanted_periods AS periods
    ON steps.calendar = periods.calendar AND steps.nth BETWEEN periods.first_nth AND periods.last_nth
WHERE steps.calendar = $calendar
