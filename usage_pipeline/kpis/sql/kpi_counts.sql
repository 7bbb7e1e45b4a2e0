-- grain: entity x period: how many different things; each counts where it was last seen in the period, so once
WITH by_entity AS (
    SELECT
        runs.entity_no,
        lying.period_no,
        sum(runs.number) AS number
    FROM kpi_distinct_spans AS runs
    INNER JOIN kpi_period_members AS lying
        ON runs.nth = lying.nth AND (runs.next_nth IS NULL OR runs.next_nth > lying.last_nth)
    GROUP BY runs.entity_no, lying.period_no
),

of_accounts AS (
    SELECT
        wholes.entity_no,
        by_entity.period_no,
        sum(by_entity.number) AS number
    FROM by_entity
    INNER JOIN core.kpi_members AS accounts
        ON by_entity.entity_no = accounts.entity_no AND accounts.entity_type = 'account'
    INNER JOIN core.kpi_members AS wholes
        ON accounts.account_id = wholes.account_id AND wholes.entity_type != 'account'
    GROUP BY wholes.entity_no, by_entity.period_no
)

SELECT
    $kpi AS kpi,
    *
FROM by_entity
UNION ALL
SELECT
    $kpi AS kpi,
    *
FROM of_accounts
