-- grain: a source, delivered or not, with its age at the time of reading
SELECT
    sources.source,
    sources.delivery,
    sources.newest,
    sources.ingested_at,
    date_diff(
        'day',
        sources.ingested_at,
        coalesce(clock.pinned_as_of, CAST(now() AT TIME ZONE clock.timezone AS TIMESTAMP))
    ) AS age_days,
    sources.read_at,
    sources.rows_kept,
    sources.rows_left_out,
    sources.held_back
FROM written.sources AS sources
CROSS JOIN written.clock AS clock
