-- a row: a flagged week lately, in words: of one account's application, or of an application over all accounts
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
)

SELECT
    CAST(flags.week_start AS TIMESTAMP) AS week_start,
    flags.scope,
    flags.account_id,
    coalesce(names.account, 'all accounts') AS account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    flags.direction,
    flags.clicks AS clicks_per_week,
    flags.usual_clicks,
    flags.change_clicks,
    flags.change_share,
    abs(flags.robust_z) AS strength,
    CASE flags.scope
        WHEN 'account'
            THEN
                applications.application || ' at ' || names.account || ': '
                || flags.clicks::BIGINT || ' clicks, expected ' || round(flags.usual_clicks)::BIGINT
        ELSE
            applications.application || ' at all accounts: '
            || round(flags.clicks, 1) || ' clicks an account, usually ' || round(flags.usual_clicks, 1)
    END
    || CASE
        WHEN flags.usual_clicks < 1 THEN ''
        ELSE
            ' (' || CASE WHEN flags.change_share > 0 THEN '+' ELSE '' END
            || round(100 * flags.change_share)::BIGINT || ' %)'
    END
        AS what_happened
FROM core.usage_flags AS flags
CROSS JOIN newest
INNER JOIN core.application_names AS applications ON flags.application = applications.application_key
LEFT JOIN core.account_names AS names ON flags.account_id = names.account_id
WHERE flags.week_start > newest.week_start - 7 * $listed_weeks
ORDER BY flags.week_start DESC, strength DESC
