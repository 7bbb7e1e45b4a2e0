-- grain: an event: what all accounts, or all accounts of an application, did together in weeks that follow each other
-- without the columns that pages filter by, so that it stays in sight: what all did explains what the filtered ones did
SELECT
    week_start,
    first_week,
    last_week,
    application AS about,
    measure,
    anomaly_type,
    direction,
    confidence,
    observed_per_week,
    expected_per_week,
    change_per_week,
    change_share,
    strength,
    cause,
    what_happened
FROM mart.anomaly_weeks
WHERE scope != 'account' AND is_event_row
ORDER BY week_start DESC, strength DESC
