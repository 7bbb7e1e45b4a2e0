-- a row: an application known to any source, with the name to show
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
        coalesce(applications.application_name, known.application) AS application,
        coalesce(applications.application_type, 'not delivered') AS application_type,
        applications.application IS NOT NULL AS is_in_reference
    FROM known
    LEFT JOIN ref.applications AS applications ON known.application = applications.application
)

SELECT
    *,
    '<a href="/application/' || url_encode(application) || '">open</a>' AS application_page
FROM named
