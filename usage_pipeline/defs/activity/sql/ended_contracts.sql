-- a row: account x application whose contract has ended: when, why, and how it was used before
SELECT
    pairs.account_id,
    names.account,
    applications.application_key,
    applications.application,
    applications.application_type,
    names.segment,
    names.region,
    names.owner,
    CAST(pairs.start_date AS TIMESTAMP) AS start_date,
    CAST(pairs.end_date AS TIMESTAMP) AS end_date,
    coalesce(pairs.end_reason, 'not delivered') AS end_reason,
    CASE
        WHEN accounts.contract_state IN ('ended', 'never started') THEN 'whole account' ELSE 'this application only'
    END AS what_ended,
    CAST(pairs.last_used_on AS TIMESTAMP) AS last_used_on,
    pairs.clicks_per_week_before_end,
    CAST(pairs.clicks_outside_contract AS BIGINT) AS clicks_outside_contract,
    pairs.annual_value,
    names.account_page
FROM core.pair_states AS pairs
INNER JOIN core.account_contracts AS accounts ON pairs.account_id = accounts.account_id
INNER JOIN core.account_names AS names ON pairs.account_id = names.account_id
INNER JOIN core.application_names AS applications ON pairs.application = applications.application_key
WHERE pairs.contract_state = 'ended'
ORDER BY pairs.end_date DESC
