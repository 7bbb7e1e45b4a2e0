-- grain: month x account x application (or the whole account) x movement: by how much it changed ARR, with names
SELECT
    CAST(movements.month_start AS TIMESTAMP) AS month_start,
    movements.account_id,
    names.account,
    coalesce(applications.application_key, 'all') AS application_key,
    coalesce(applications.application, 'all applications') AS application,
    coalesce(applications.application_type, 'all applications') AS application_type,
    names.segment,
    names.region,
    names.owner,
    movements.movement AS arr_movement,
    CAST(movements.amount AS DOUBLE) AS arr_change
FROM core.arr_movements AS movements
INNER JOIN core.account_names AS names ON movements.account_id = names.account_id
LEFT JOIN core.application_names AS applications ON movements.application = applications.application_key
ORDER BY movements.month_start, names.account, application, arr_movement
