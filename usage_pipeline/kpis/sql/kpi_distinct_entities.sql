-- grain: entity x user (or account, or subscription) x month (or week) in which it is counted
SELECT DISTINCT
    holders.entity_no,
    counted_use.thing,
    counted_use.nth
FROM counted_use
INNER JOIN
    kpi_entity_account_applications AS holders
    ON counted_use.account_application_no = holders.account_application_no
-- what is of one account lies in one segment, region and so on: those are sums of accounts
WHERE holders.entity_type IN ('account', 'application', 'application type', 'group of applications')
