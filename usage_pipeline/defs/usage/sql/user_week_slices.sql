-- grain: a week x what it reads: of itself, and who came in it or before, which gives users their numbers
SELECT
    CAST(CAST(weeks.week_start AS TIMESTAMP) AS VARCHAR) AS slice,
    concat_ws(' ', weeks.is_complete, weeks.is_running) AS content
FROM core.weeks AS weeks
UNION ALL
SELECT
    CAST(CAST(weeks.week_start AS TIMESTAMP) AS VARCHAR) AS slice,
    concat_ws(' ', slices.slice, slices.row_count, slices.row_hashes) AS content
FROM core.weeks AS weeks
INNER JOIN meta.slices AS slices
    ON slices.name = 'core.weekly_users' AND CAST(slices.slice AS DATE) <= weeks.week_start
