-- grain: an application known to any source, with one label that no other application has
WITH known AS (
    SELECT application FROM ref.applications
    UNION
    SELECT application FROM ref.subscriptions
    WHERE application IS NOT NULL
    UNION
    SELECT application FROM core.weekly_usage
),

named AS (
    SELECT
        known.application AS application_key,
        coalesce(applications.application_name, known.application) AS application_name,
        coalesce(applications.application_type, 'not delivered') AS application_type,
        applications.application IS NOT NULL AS is_in_reference
    FROM known
    LEFT JOIN ref.applications AS applications ON known.application = applications.application
),

labelled AS (
    SELECT
        *,
        CASE
            WHEN
                count(*) OVER (PARTITION BY application_name) > 1
                -- a name that ends like another's name with its key
                OR regexp_extract(application_name, ' \(([^()]*)\)$', 1) IN (SELECT application FROM known)
                THEN application_name || ' (' || application_key || ')'
            ELSE application_name
        END AS application
    FROM named
)

SELECT
    application_key,
    application,
    application_type,
    is_in_reference
FROM labelled
