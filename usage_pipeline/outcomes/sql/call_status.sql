-- grain: an account on the call list of the build that is shown, with what became of it
SELECT
    calls.*,
    given.call_status,
    given.call_status_text,
    given.outcome_at,
    given.was_reached,
    '<a href="/outcome/' || url_encode(calls.account_id) || '">record</a>' AS record_outcome
FROM shown.mart.call_list AS calls
INNER JOIN given ON calls.account_id = given.account_id
ORDER BY calls.rank
