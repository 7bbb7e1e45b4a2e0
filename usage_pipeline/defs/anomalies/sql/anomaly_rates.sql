-- grain: a measure that anomalies are looked for in
SELECT
    measure,
    is_calibrated,
    weeks_counted,
    account_weeks,
    listed AS weeks_listed,
    listed / nullif(account_weeks, 0) AS listed_share,
    CASE
        WHEN account_weeks = 0 THEN 'No week could be judged by its ' || measure || ' yet'
        ELSE
            format('{:.2f}', 100.0 * listed / account_weeks) || ' % of '
            || format('{:,}', account_weeks) || ' weeks of an account with an application were listed by '
            || measure || ' over the last ' || weeks_counted || ' weeks, '
            || format('{:,}', with_high_confidence) || ' of ' || format('{:,}', listed) || ' with high confidence'
            || CASE
                WHEN is_calibrated THEN '; thresholds come from this lake, from the weeks before each'
                ELSE
                    '; not yet calibrated: thresholds are assumed until there are 30 weeks and 5,000 account-weeks '
                    || 'to learn them from'
            END
    END AS what_is_listed
FROM core.anomaly_rates
ORDER BY CASE measure WHEN 'clicks' THEN 1 WHEN 'users' THEN 2 ELSE 3 END
