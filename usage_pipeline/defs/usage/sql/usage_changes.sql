-- grain: account x subscribed application now and a year ago: its last 13 complete weeks against the same of last year
WITH newest AS (
    SELECT max(week_start) AS week_start
    FROM core.weeks
    WHERE is_complete
),

compared AS (
    SELECT
        this_year.account_application_id,
        count(*) AS weeks_compared,
        sum(this_year.clicks) AS clicks,
        sum(last_year.clicks) AS clicks_last_year,
        sum(this_year.records_created) AS records_created,
        sum(last_year.records_created) AS records_last_year
    FROM core.subscription_weeks AS this_year
    CROSS JOIN newest
    INNER JOIN core.weeks AS weeks ON this_year.week_start = weeks.week_start
    INNER JOIN core.weeks AS weeks_before ON weeks.last_year_week = weeks_before.week_start
    INNER JOIN core.subscription_weeks AS last_year
        ON
            weeks.last_year_week = last_year.week_start
            AND this_year.account_application_id = last_year.account_application_id
    WHERE
        weeks.is_complete AND weeks_before.is_complete
        AND this_year.week_start > newest.week_start - 7 * 13
        AND this_year.subscribed_days = 7 AND last_year.subscribed_days = 7
    GROUP BY this_year.account_application_id
),

changed AS (
    SELECT
        compared.*,
        clicks - clicks_last_year AS clicks_change,
        (clicks - clicks_last_year) / nullif(clicks_last_year, 0) AS clicks_change_share,
        records_created - records_last_year AS records_change,
        (records_created - records_last_year) / nullif(records_last_year, 0) AS records_change_share
    FROM compared
)

SELECT
    account_applications.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    changed.weeks_compared,
    CAST(changed.clicks AS BIGINT) AS clicks,
    CAST(changed.clicks_last_year AS BIGINT) AS clicks_last_year,
    CAST(changed.clicks_change AS BIGINT) AS clicks_change,
    changed.clicks_change_share,
    CAST(changed.records_created AS BIGINT) AS records_created,
    CAST(changed.records_last_year AS BIGINT) AS records_last_year,
    CAST(changed.records_change AS BIGINT) AS records_change,
    changed.records_change_share,
    CASE
        WHEN abs(changed.clicks_change) < $change_absolute_floor THEN 'steady'
        WHEN abs(changed.clicks_change) < $change_relative_floor * greatest(changed.clicks_last_year, 1) THEN 'steady'
        WHEN changed.clicks_change > 0 THEN 'gainer'
        ELSE 'decliner'
    END AS movement
FROM changed
INNER JOIN
    core.account_application_states AS account_applications
    ON changed.account_application_id = account_applications.account_application_id
INNER JOIN core.account_names AS names ON account_applications.account_id = names.account_id
INNER JOIN core.application_names AS applications ON account_applications.application = applications.application_key
WHERE account_applications.subscription_state IN ('active subscription', 'notice received')
ORDER BY changed.clicks_change
