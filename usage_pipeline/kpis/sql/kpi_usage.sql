-- grain: account x application x user x month (or week) of use, subscribed or outside it
WITH came AS (
    SELECT
        'month' AS calendar,
        month_start AS first_day,
        account_id,
        application,
        user_id,
        clicks,
        records_created
    FROM core.monthly_users
    UNION ALL
    SELECT
        'week' AS calendar,
        week_start AS first_day,
        account_id,
        application,
        user_id,
        clicks,
        records_created
    FROM core.weekly_users
)

SELECT
    steps.nth,
    account_applications.account_application_no,
    account_applications.account_no,
    people.user_no,
    came.clicks,
    came.records_created
FROM came
INNER JOIN kpi_steps AS steps ON came.calendar = steps.calendar AND came.first_day = steps.first_day
INNER JOIN
    kpi_account_applications AS account_applications
    ON came.account_id = account_applications.account_id AND came.application = account_applications.application
LEFT JOIN kpi_user_ids AS people ON came.account_id = people.account_id AND came.user_id = people.user_id
WHERE came.calendar = $calendar
