-- a row: entity x account x application that it holds
SELECT
    members.entity_no,
    members.entity_type,
    pairs.pair_no
FROM core.kpi_members AS members
INNER JOIN kpi_pairs AS pairs ON members.account_id = pairs.account_id
UNION ALL
SELECT
    members.entity_no,
    members.entity_type,
    pairs.pair_no
FROM core.kpi_members AS members
INNER JOIN kpi_pairs AS pairs ON members.application = pairs.application
