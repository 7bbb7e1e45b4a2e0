-- grain: entity x period, with its figures: accounts are thousands, and each has a page with its own lines
WITH entities AS (
    SELECT entity_no
    FROM core.kpi_members
    WHERE entity_type != 'account'
)

SELECT
    own.entity_no,
    own.period_no,
    periods.period,
    periods.last_nth,
    periods.reference_day,
    own AS own
FROM core.kpi_values AS own
INNER JOIN core.kpi_periods AS periods ON own.period_no = periods.period_no
SEMI JOIN entities ON own.entity_no = entities.entity_no
