-- grain: month (or week) x account x application subscribed on one of its days, and whether on its last
SELECT
    steps.calendar,
    steps.nth,
    subscription_periods.account_id,
    subscription_periods.application,
    bool_or(subscription_periods.end_date >= steps.last_day AND subscription_periods.start_date <= steps.last_day)
        AS is_subscribed
FROM core.subscription_periods AS subscription_periods
INNER JOIN
    core.kpi_base_periods AS steps
    ON subscription_periods.start_date <= steps.last_day AND subscription_periods.end_date >= steps.first_day
GROUP BY ALL
