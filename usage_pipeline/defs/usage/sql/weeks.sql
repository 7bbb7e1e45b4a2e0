-- grain: one week since the first of which a row has come, up to the running one, and whether it may be judged by
-- rows that come late lie in the folder of the next week: those of the oldest folder can be of a week that has none
WITH came_by_date AS (
    SELECT DISTINCT week_start FROM core.weekly_usage
),

spine AS (
    SELECT CAST(week AS DATE) AS week_start
    FROM
        generate_series(
            least(
                (SELECT min(week) FROM manifests),
                (SELECT min(week_start) FROM came_by_date),
                CAST($window_start AS DATE)
            ),
            CAST($running_week AS DATE),
            INTERVAL 7 DAYS
        ) AS series (week)
),

counted AS (
    SELECT
        spine.week_start,
        manifests.week IS NOT NULL AS has_arrived,
        came_by_date.week_start IS NOT NULL AS has_rows,
        coalesce(manifests.files_quarantined, 0) AS files_quarantined,
        manifests.source_rows,
        manifests.read_on,
        -- of folders cut in a zone that is ahead: the last hours of a week lie in the next one, read since it was over
        NOT $ends_in_next_folder
        OR coalesce(
            next_folder.files_quarantined = 0 AND coalesce(next_folder.read_on > spine.week_start + 6, TRUE), FALSE
        ) AS has_its_end,
        coalesce(manifests.rows_rejected > $rejected_share * manifests.source_rows, FALSE) AS has_many_rejected,
        median(manifests.source_rows) OVER (
            ORDER BY spine.week_start ROWS BETWEEN 8 PRECEDING AND 1 PRECEDING
        ) AS rows_before,
        -- a season that comes back is no second delivery
        max(manifests.source_rows) OVER (
            ORDER BY spine.week_start ROWS BETWEEN 53 PRECEDING AND 51 PRECEDING
        ) AS rows_last_year
    FROM spine
    LEFT JOIN manifests ON spine.week_start = manifests.week
    LEFT JOIN manifests AS next_folder ON spine.week_start + 7 = next_folder.week
    LEFT JOIN came_by_date ON spine.week_start = came_by_date.week_start
),

judged AS (
    SELECT
        *,
        week_start = CAST($running_week AS DATE) AS is_running,
        week_start + 7 + CAST($settle_days AS INTEGER) <= CAST($as_of_day AS DATE) AS has_settled,
        -- facts of before that day are those of a week that was still running
        coalesce(week_start + 7 + CAST($settle_days AS INTEGER) <= read_on, TRUE) AS is_read_whole,
        coalesce(rows_before >= $collapse_floor_rows AND source_rows < $collapse_share * rows_before, FALSE)
            AS has_collapsed,
        coalesce(
            rows_before >= $collapse_floor_rows
            AND source_rows > $explosion_share * greatest(rows_before, coalesce(rows_last_year, 0)), FALSE
        ) AS has_exploded
    FROM counted
)

SELECT
    week_start,
    has_arrived,
    files_quarantined,
    source_rows,
    is_running,
    has_arrived
    AND has_settled
    AND is_read_whole
    AND has_its_end
    AND files_quarantined = 0
    AND NOT (has_many_rejected OR has_collapsed OR has_exploded) AS is_complete,
    CASE
        WHEN is_running THEN 'running'
        WHEN NOT has_arrived AND has_rows THEN 'only late rows'
        WHEN NOT has_arrived THEN 'never arrived'
        WHEN files_quarantined > 0 THEN 'files quarantined'
        WHEN has_many_rejected THEN 'many rows rejected'
        WHEN has_collapsed THEN 'far fewer rows than usual'
        WHEN has_exploded THEN 'far more rows than usual'
        WHEN NOT has_settled THEN 'not settled yet'
        WHEN NOT is_read_whole THEN 'not read since it ended'
        WHEN NOT has_its_end THEN 'last hours not arrived'
        ELSE 'complete'
    END AS week_status,
    -- the same ISO week a year ago; week 53 is compared with week 52
    CAST(
        date_trunc('week', make_date(CAST(isoyear(week_start) AS INTEGER) - 1, 1, 4)) AS DATE
    ) + CAST(7 * (least(week(week_start), 52) - 1) AS INTEGER) AS last_year_week,
    week(week_start) = 53 AS is_week_53
FROM judged
ORDER BY week_start
