-- grain: entity x account x application that it holds
SELECT
    members.entity_no,
    members.entity_type,
    account_applications.account_application_no
FROM core.kpi_members AS members
INNER JOIN kpi_account_applications AS account_applications ON members.account_id = account_applications.account_id
UNION ALL
SELECT
    members.entity_no,
    members.entity_type,
    account_applications.account_application_no
FROM core.kpi_members AS members
INNER JOIN kpi_account_applications AS account_applications ON members.application = account_applications.application
