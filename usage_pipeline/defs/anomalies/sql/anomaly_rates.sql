-- grain: a measure that anomalies are looked for in
SELECT
    measure,
    is_calibrated,
    weeks_counted,
    account_weeks,
    listed AS weeks_listed,
    listed / nullif(account_weeks, 0) AS listed_share,
    CASE
        WHEN account_weeks = 0 THEN format($text__anomaly__rate__none_judged, measures)
        ELSE
            format(
                $text__anomaly__rate__listed,
                translate(format('{:.2f}', 100.0 * listed / account_weeks), ',.', $separators),
                translate(format('{:,}', account_weeks), ',.', $separators),
                measures,
                weeks_counted,
                translate(format('{:,}', with_high_confidence), ',.', $separators),
                translate(format('{:,}', listed), ',.', $separators)
            )
            || CASE
                WHEN is_calibrated THEN $text__anomaly__rate__calibrated
                ELSE $text__anomaly__rate__not_calibrated
            END
    END AS what_is_listed
FROM (
    SELECT
        *,
        CASE measure
            WHEN 'clicks' THEN $text__anomaly__clicks
            WHEN 'records' THEN $text__anomaly__records
            ELSE $text__anomaly__users
        END AS measures
    FROM core.anomaly_rates
) AS rates
ORDER BY CASE measure WHEN 'clicks' THEN 1 WHEN 'users' THEN 2 ELSE 3 END
