-- a row: account x application x contract, in order: every one that was delivered or inferred, ended ones too
SELECT
    spells.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    CAST(spells.spell_number AS INTEGER) AS spell_number,
    CAST(spells.start_date AS TIMESTAMP) AS start_date,
    CAST(spells.notice_date AS TIMESTAMP) AS notice_date,
    CAST(nullif(spells.end_date, DATE '9999-12-31') AS TIMESTAMP) AS end_date,
    spells.end_reason,
    CASE
        WHEN spells.start_date > CAST($as_of_day AS DATE) THEN 'not started'
        WHEN spells.end_date < CAST($as_of_day AS DATE) THEN 'ended'
        WHEN spells.notice_date <= CAST($as_of_day AS DATE) THEN 'notice given'
        ELSE 'in contract'
    END AS contract_state,
    CAST(spells.renewal_date AS TIMESTAMP) AS renewal_date,
    CAST(spells.seats AS BIGINT) AS seats,
    spells.annual_value
FROM core.contract_spells AS spells
INNER JOIN core.account_names AS names ON spells.account_id = names.account_id
INNER JOIN core.application_names AS applications ON spells.application = applications.application_key
ORDER BY names.account, applications.application, spells.spell_number
