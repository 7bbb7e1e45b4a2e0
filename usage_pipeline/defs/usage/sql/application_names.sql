-- a row: an application known to any source, with the name to show
WITH known AS (
    SELECT application FROM ref.applications
    UNION
    SELECT application FROM ref.subscriptions
    WHERE application IS NOT NULL
    UNION
    SELECT application FROM core.weekly_usage
),

labels AS (
    SELECT
        known.application,
        '''' || replace(
            replace(coalesce(applications.application_name, known.application), '!', '!!'), '''', '!'''
        ) || '''' AS quoted
    FROM known
    LEFT JOIN ref.applications AS applications ON known.application = applications.application
)

SELECT
    known.application AS application_key,
    coalesce(applications.application_name, known.application) AS application,
    coalesce(applications.application_type, 'not delivered') AS application_type,
    applications.application IS NOT NULL AS is_in_reference,
    -- opens the page of the application: its filter as Superset writes it, in Rison
    '<a href="/superset/dashboard/application/?native_filters=' || url_encode(
        '(NATIVE_FILTER-application:(extraFormData:(filters:!((col:application,op:IN,val:!('
        || labels.quoted || ')))),filterState:(value:!(' || labels.quoted
        || ')),id:NATIVE_FILTER-application,ownState:()))'
    ) || '">open</a>' AS application_page
FROM known
LEFT JOIN ref.applications AS applications ON known.application = applications.application
INNER JOIN labels ON known.application = labels.application
