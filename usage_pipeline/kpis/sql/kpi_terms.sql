-- grain: month (or week) x account x application (none: about the whole account) with a subscription on its last day
-- as it was told for that day: a renewal changes nothing before it. Several about the whole account can run side by
-- side, and each is worth what it says
SELECT
    steps.calendar,
    steps.nth,
    terms.account_id,
    terms.application,
    sum(terms.seats) AS seats,
    CAST(sum(terms.annual_value) AS DOUBLE) AS annual_value
FROM core.subscription_terms AS terms
INNER JOIN core.kpi_base_periods AS steps ON steps.last_day BETWEEN terms.start_date AND terms.end_date
GROUP BY ALL
