-- a row: a week in which all accounts, or all accounts of an application, did together what was not to be expected
-- without the columns of an account, so that the filters of a page by account, segment, region and owner leave it alone
SELECT
    week_start,
    application_key,
    application,
    application_type,
    measure,
    flag_kind,
    direction,
    tier,
    observed_per_week,
    expected_per_week,
    change_per_week,
    change_share,
    strength,
    cause,
    what_happened
FROM mart.flagged_weeks
WHERE scope != 'account'
ORDER BY week_start DESC, strength DESC
