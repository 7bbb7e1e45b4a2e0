-- grain: month x account x application (or the whole account): what became in twelve months of its ARR, with names
SELECT
    CAST(retention.month_start AS TIMESTAMP) AS month_start,
    retention.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    CAST(retention.starting_arr AS DOUBLE) AS starting_arr,
    CAST(retention.contraction AS DOUBLE) AS arr_contraction,
    CAST(retention.churned AS DOUBLE) AS arr_churned,
    CAST(retention.expansion AS DOUBLE) AS arr_expansion,
    CAST(retention.reactivated AS DOUBLE) AS arr_reactivated,
    CAST(retention.joined AS DOUBLE) AS arr_joined,
    CAST(retention.arr AS DOUBLE) AS arr,
    retention.subscriptions,
    retention.subscriptions_with_value
FROM core.arr_retention AS retention
INNER JOIN core.account_names AS names ON retention.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON retention.application = applications.application_key
ORDER BY retention.month_start, names.account, application
