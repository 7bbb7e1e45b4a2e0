-- grain: account x application (or all of them) x week or month x what changed: how many came, came back, were lost
SELECT
    events.unit,
    events.period AS counted_by,
    CAST(events.period_start AS TIMESTAMP) AS period_start,
    events.account_id,
    names.account,
    coalesce(events.application, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    events.change,
    events.number,
    -- what was lost counts downwards
    CASE WHEN events.change IN ('new', 'reactivated') THEN events.number ELSE -events.number END AS signed_number
FROM core.growth_events AS events
INNER JOIN core.account_names AS names ON events.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON events.application = applications.application_key
-- those that stayed are the rest of those that used it, and most of the rows
WHERE events.change != 'kept'
ORDER BY events.unit, counted_by, period_start, names.account, application
