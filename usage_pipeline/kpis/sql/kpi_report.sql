-- grain: KPI x entity x period x reference month (the month it ends with; of a week, its Monday)
WITH compared AS (
    SELECT
        *,
        value - value_year_ago AS difference,
        coalesce(
            abs(value - value_year_ago) >= greatest($floor, $share * abs(value_year_ago)), FALSE
        ) AS is_big_change
    FROM kpi_one
)

SELECT
    $kpi AS kpi,
    CAST($kpi_rank AS INTEGER) AS kpi_rank,
    $kpi_group AS kpi_group,
    $unit AS kpi_unit,
    $number_format AS number_format,
    entity_type,
    entity_key,
    entity,
    entity_group,
    kpi_period,
    reference_month,
    reference,
    period_from,
    period_to,
    is_complete_period,
    value,
    value_year_ago,
    value_before,
    active_accounts,
    CASE WHEN $per_active_account THEN value / nullif(active_accounts, 0) END AS per_active_account,
    CASE
        WHEN difference IS NULL THEN 'not compared'
        WHEN difference = 0 THEN 'no change'
        WHEN $good = 'neither' THEN CASE WHEN difference > 0 THEN 'higher' ELSE 'lower' END
        WHEN (difference > 0) = ($good = 'up') THEN 'improved'
        ELSE 'declined'
    END AS change_is,
    is_big_change,
    CASE
        WHEN is_big_change
            THEN
                $kpi || ' of ' || what || ': ' || kpi_shown(value) || ', a year ago ' || kpi_shown(value_year_ago)
                || coalesce(' (' || format('{:+.0f} %', 100 * difference / nullif(value_year_ago, 0)) || ')', '')
    END AS big_change
FROM compared
