-- a row: account x application that was ever in contract, and the number that stands for both in large tables
SELECT DISTINCT
    pair_id,
    account_id,
    application
FROM core.contract_spells
ORDER BY pair_id
