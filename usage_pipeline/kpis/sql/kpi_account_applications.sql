-- grain: account x application ever subscribed or in use (none: subscriptions about the whole account), as a number
SELECT
    CAST(row_number() OVER (ORDER BY account_id, application) AS INTEGER) AS account_application_no,
    CAST(dense_rank() OVER (ORDER BY account_id) AS INTEGER) AS account_no,
    account_id,
    application
FROM (
    SELECT
        account_id,
        application
    FROM core.account_applications
    UNION
    SELECT
        account_id,
        application
    FROM core.weekly_usage
    UNION
    SELECT
        account_id,
        NULL AS application
    FROM ref.subscriptions
    WHERE application IS NULL
) AS known
