-- grain: entity x month of use x month of the next use (none: NULL): of how many things counted
WITH followed AS (
    SELECT
        entity_no,
        nth,
        lead(nth) OVER (PARTITION BY entity_no, thing ORDER BY nth) AS next_nth
    FROM kpi_distinct_entities
)

SELECT
    entity_no,
    nth,
    next_nth,
    count(*) AS number
FROM followed
GROUP BY entity_no, nth, next_nth
