-- grain: entity x account, or entity x application: what belongs to each entity of the KPI sheet
WITH applications AS (
    SELECT
        *,
        -- one label each: a name that two share says nothing
        CASE
            WHEN count(*) OVER (PARTITION BY application) > 1 THEN application || ' (' || application_key || ')'
            ELSE application
        END AS label
    FROM core.application_names
),

listed AS (
    SELECT
        'all' AS entity_type,
        'all' AS entity_key,
        'all accounts' AS entity,
        account_id,
        CAST(NULL AS VARCHAR) AS application
    FROM core.account_names
    UNION ALL
    SELECT
        'segment' AS entity_type,
        segment AS entity_key,
        segment AS entity,
        account_id,
        NULL AS application
    FROM core.account_names
    UNION ALL
    SELECT
        'region' AS entity_type,
        region AS entity_key,
        region AS entity,
        account_id,
        NULL AS application
    FROM core.account_names
    UNION ALL
    SELECT
        'CSM' AS entity_type,
        owner AS entity_key,
        owner AS entity,
        account_id,
        NULL AS application
    FROM core.account_names
    UNION ALL
    SELECT
        'account' AS entity_type,
        account_id AS entity_key,
        account AS entity,
        account_id,
        NULL AS application
    FROM core.account_names
    UNION ALL
    SELECT
        'application type' AS entity_type,
        application_type AS entity_key,
        application_type AS entity,
        NULL AS account_id,
        application_key AS application
    FROM applications
    UNION ALL
    SELECT
        'application' AS entity_type,
        application_key AS entity_key,
        label AS entity,
        NULL AS account_id,
        application_key AS application
    FROM applications
    UNION ALL
    SELECT
        'group of ' || kind AS entity_type,
        group_name AS entity_key,
        group_name AS entity,
        CASE WHEN kind = 'accounts' THEN member END AS account_id,
        CASE WHEN kind = 'applications' THEN member END AS application
    FROM kpi_groups
),

-- the groups that each account or application is in
grouped AS (
    SELECT
        kind,
        member,
        string_agg(group_name, ', ' ORDER BY group_name) AS entity_group
    FROM kpi_groups
    GROUP BY kind, member
)

SELECT
    CAST(dense_rank() OVER (ORDER BY listed.entity_type, listed.entity, listed.entity_key) AS INTEGER) AS entity_no,
    listed.*,
    CASE
        WHEN listed.entity_type LIKE 'group of %' THEN listed.entity
        WHEN listed.entity_type IN ('account', 'application') THEN coalesce(grouped.entity_group, 'no group')
        ELSE 'no group'
    END AS entity_group
FROM listed
LEFT JOIN grouped ON listed.entity_type || 's' = grouped.kind AND listed.entity_key = grouped.member
ORDER BY entity_no
