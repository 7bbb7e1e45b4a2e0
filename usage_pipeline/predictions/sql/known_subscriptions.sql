-- grain: a subscription row as it was known when the week of as-of had ended
SELECT
    account_id,
    application,
    start_date,
    CASE WHEN notice_date <= CAST($as_of_week AS DATE) + 6 THEN notice_date END AS notice_date,
    CASE WHEN end_date <= CAST($as_of_week AS DATE) + 6 THEN end_date END AS end_date,
    CASE WHEN end_date <= CAST($as_of_week AS DATE) + 6 THEN end_reason END AS end_reason,
    -- what a later delivery says of renewal, seats and value may follow from an end that nobody knew of then
    CASE WHEN $is_of_then THEN renewal_date END AS renewal_date,
    CASE WHEN $is_of_then THEN seats END AS seats,
    CASE WHEN $is_of_then THEN annual_value END AS annual_value
FROM ref.delivered
-- one that begins the day after is known too: where the row before ends on that Sunday, it goes on
WHERE start_date <= CAST($as_of_week AS DATE) + 7
