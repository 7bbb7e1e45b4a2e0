-- grain: a period that ends with a week or month on record: all of it complete, or the month that runs
WITH lengths AS (
    SELECT *
    FROM (
        VALUES
        (1, 'week', 'week', 1),
        (2, 'month', 'month', 1),
        (3, '3 months', 'month', 3),
        (4, '6 months', 'month', 6),
        (5, '12 months', 'month', 12),
        (6, 'year to date', 'month', NULL)
    ) AS known (place, period, calendar, steps)
),

ending AS (
    SELECT
        lengths.place,
        lengths.period,
        lengths.calendar,
        lengths.steps,
        last_step.nth AS last_nth,
        coalesce(last_step.nth - lengths.steps + 1, 12 * (last_step.nth // 12)) AS first_nth,
        last_step.is_complete,
        last_step.first_day AS reference_day,
        last_step.last_day,
        last_step.nth_year_ago,
        -- a year to date has none of its length
        last_step.nth - lengths.steps AS nth_before
    FROM lengths
    INNER JOIN core.kpi_base_periods AS last_step ON lengths.calendar = last_step.calendar
    WHERE last_step.is_complete OR lengths.period = 'month'
),

given AS (
    SELECT
        ending.*,
        min(steps.first_day) AS first_day
    FROM ending
    INNER JOIN core.kpi_base_periods AS steps
        ON ending.calendar = steps.calendar AND steps.nth BETWEEN ending.first_nth AND ending.last_nth
    GROUP BY ALL
    -- a period with a month that is not complete, or not on record, is not given
    HAVING
        count(*) = ending.last_nth - ending.first_nth + 1
        AND (bool_and(steps.is_complete) OR NOT ending.is_complete)
),

numbered AS (
    SELECT
        *,
        -- of its kind and end, so that one more changes no number of the others
        CAST(100000 * place + last_nth AS INTEGER) AS period_no
    FROM given
)

SELECT
    periods.period_no,
    periods.place,
    periods.period,
    periods.calendar,
    periods.first_nth,
    periods.last_nth,
    periods.is_complete,
    periods.reference_day,
    periods.first_day,
    periods.last_day,
    -- only what is complete is compared, with what is complete
    year_ago.period_no AS period_no_year_ago,
    before.period_no AS period_no_before
FROM numbered AS periods
LEFT JOIN numbered AS year_ago
    ON
        periods.period = year_ago.period
        AND periods.nth_year_ago = year_ago.last_nth
        AND periods.is_complete
        AND year_ago.is_complete
LEFT JOIN numbered AS before
    ON
        periods.period = before.period
        AND periods.nth_before = before.last_nth
        AND periods.is_complete
        AND before.is_complete
