-- a row: account x application x contract x whole month in contract since its start, until the contract ends
WITH spells AS (
    SELECT
        spells.*,
        date_trunc('month', spells.start_date) AS start_month
    FROM core.contract_spells AS spells
    -- an inferred contract begins with its first use: it would be retained by definition
    WHERE
        spells.basis = 'application'
        AND spells.start_date >= (SELECT min(month_start) FROM core.months)
),

used AS (
    SELECT DISTINCT
        month_start,
        account_id,
        application
    FROM core.monthly_users
    WHERE clicks > 0
)

SELECT
    spells.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    spells.spell_number,
    year(spells.start_date) || ' Q' || quarter(spells.start_date) AS cohort,
    CAST(date_diff('month', spells.start_month, months.month_start) AS INTEGER) AS months_since_start,
    CAST(months.month_start AS TIMESTAMP) AS month_start,
    used.account_id IS NOT NULL AS is_used
FROM spells
INNER JOIN core.months AS months
    ON spells.start_date <= months.month_start AND spells.end_date >= months.month_end AND months.is_complete
INNER JOIN core.account_names AS names ON spells.account_id = names.account_id
INNER JOIN core.application_names AS applications ON spells.application = applications.application_key
LEFT JOIN used
    ON
        months.month_start = used.month_start
        AND spells.account_id = used.account_id
        AND spells.application = used.application
ORDER BY cohort, names.account, applications.application, months_since_start
