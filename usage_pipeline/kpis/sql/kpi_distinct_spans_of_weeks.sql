-- grain: entity x week of use: of how many things; what comes after is no matter where no period has two weeks
SELECT
    entity_no,
    nth,
    CAST(NULL AS INTEGER) AS next_nth,
    count(*) AS number
FROM kpi_distinct_entities
GROUP BY entity_no, nth
