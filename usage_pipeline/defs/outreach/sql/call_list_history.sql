-- grain: week x account: the call list as it was issued, with its order
SELECT
    CAST(issued.as_of_week AS TIMESTAMP) AS as_of_week,
    issued.rank,
    issued.urgency,
    issued.urgency_rank,
    issued.account_id,
    issued.account,
    issued.segment,
    issued.region,
    issued.owner,
    issued.reason,
    issued.call_reasons,
    issued.news,
    issued.new_reasons,
    issued.applications_at_risk,
    issued.arr_at_risk,
    issued.annual_value,
    CAST(issued.renewal_date AS TIMESTAMP) AS renewal_date,
    issued.health,
    issued.health_color,
    -- the build is not named: the one that issues a week does not know its own name yet
    issued.issued_as_of
FROM core.call_snapshots AS issued
LEFT JOIN core.account_names AS names ON issued.account_id = names.account_id
ORDER BY issued.as_of_week, issued.rank
