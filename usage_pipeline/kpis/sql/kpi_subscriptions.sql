-- grain: account x application x month (or week) in which it was used, subscribed, won, lost or at risk
-- and account x month in which a subscription about the whole account ran: its seats and value belong to no application
WITH steps AS (
    SELECT *
    FROM kpi_steps
    WHERE calendar = $calendar
),

used AS (
    SELECT
        nth,
        account_application_no,
        sum(clicks) AS clicks,
        sum(records_created) AS records_created,
        count(user_no) FILTER (WHERE clicks > 0) AS active_users
    FROM kpi_usage
    GROUP BY nth, account_application_no
),

terms AS (
    SELECT
        steps.nth,
        account_applications.account_application_no,
        account_applications.account_no,
        account_applications.application,
        terms.seats,
        terms.annual_value
    FROM kpi_terms AS terms
    INNER JOIN steps ON terms.calendar = steps.calendar AND terms.nth = steps.nth
    INNER JOIN
        kpi_account_applications AS account_applications
        ON
            terms.account_id = account_applications.account_id
            AND terms.application IS NOT DISTINCT FROM account_applications.application
),

subscribed AS (
    SELECT
        steps.nth,
        account_applications.account_application_no,
        own.is_subscribed,
        terms.seats,
        terms.annual_value
    FROM kpi_subscribed AS own
    INNER JOIN steps ON own.calendar = steps.calendar AND own.nth = steps.nth
    INNER JOIN
        kpi_account_applications AS account_applications
        ON own.account_id = account_applications.account_id AND own.application = account_applications.application
    LEFT JOIN
        terms
        ON steps.nth = terms.nth AND account_applications.account_application_no = terms.account_application_no
),

account_rows AS (
    SELECT
        nth,
        account_application_no,
        account_no,
        seats,
        annual_value
    FROM terms
    WHERE application IS NULL
),

-- seats of the whole account are taken by users of its applications that have none of their own
account_users AS (
    SELECT
        account_rows.nth,
        account_rows.account_application_no,
        count(DISTINCT kpi_usage.user_no) AS active_users
    FROM account_rows
    INNER JOIN kpi_usage ON account_rows.nth = kpi_usage.nth AND account_rows.account_no = kpi_usage.account_no
    INNER JOIN
        subscribed
        ON kpi_usage.nth = subscribed.nth AND kpi_usage.account_application_no = subscribed.account_application_no
    WHERE kpi_usage.clicks > 0 AND subscribed.is_subscribed AND subscribed.seats IS NULL
    GROUP BY account_rows.nth, account_rows.account_application_no
),

states AS (
    SELECT
        steps.nth,
        account_applications.account_application_no,
        CAST(states.usage_state AS VARCHAR) AS usage_state
    FROM core.usage_states AS states
    INNER JOIN steps ON states.week_start = steps.state_week
    INNER JOIN core.account_applications AS numbered ON states.account_application_id = numbered.account_application_id
    INNER JOIN kpi_account_applications AS account_applications
        ON
            numbered.account_id = account_applications.account_id
            AND numbered.application = account_applications.application
),

changes AS (
    SELECT
        steps.nth,
        account_applications.account_application_no,
        events.change
    FROM core.growth_events AS events
    INNER JOIN steps ON events.period_start = steps.first_day
    INNER JOIN
        kpi_account_applications AS account_applications
        ON events.account_id = account_applications.account_id AND events.application = account_applications.application
    WHERE events.unit = 'application of an account' AND events.period = $calendar
),

risks AS (
    SELECT DISTINCT
        steps.nth,
        account_applications.account_application_no
    FROM core.score_snapshots AS scores
    INNER JOIN steps ON scores.as_of_week = steps.state_week
    INNER JOIN
        kpi_account_applications AS account_applications
        ON scores.account_id = account_applications.account_id AND scores.application = account_applications.application
    WHERE scores.is_listed
),

spine AS (
    SELECT
        nth,
        account_application_no
    FROM used
    UNION
    SELECT
        nth,
        account_application_no
    FROM subscribed
    UNION
    SELECT
        nth,
        account_application_no
    FROM account_rows
    UNION
    SELECT
        nth,
        account_application_no
    FROM changes
    UNION
    SELECT
        nth,
        account_application_no
    FROM risks
)

SELECT
    spine.nth,
    spine.account_application_no,
    account_applications.account_no,
    coalesce(used.clicks, 0) AS clicks,
    CASE WHEN $has_records THEN coalesce(used.records_created, 0) END AS records_created,
    CASE WHEN $has_users THEN coalesce(used.active_users, 0) END AS active_users,
    account_applications.application IS NULL AS is_whole_account,
    coalesce(subscribed.is_subscribed, account_rows.account_application_no IS NOT NULL) AS is_subscribed,
    coalesce(subscribed.seats, account_rows.seats) AS seats,
    coalesce(subscribed.annual_value, account_rows.annual_value) AS annual_value,
    CASE
        WHEN $has_users AND coalesce(subscribed.seats, account_rows.seats) IS NOT NULL
            -- more people than seats are seen as such: a cap would hide who is due for more seats
            THEN coalesce(used.active_users, account_users.active_users, 0)
    END AS seats_taken,
    -- what ended after that week has no state
    CASE
        WHEN steps.state_week IS NOT NULL
            THEN CASE WHEN subscribed.is_subscribed THEN coalesce(states.usage_state, 'none') ELSE 'none' END
    END AS usage_state,
    CASE WHEN steps.is_risk_known THEN risks.account_application_no IS NOT NULL END AS is_at_risk,
    CASE WHEN steps.is_growth_known THEN coalesce(changes.change, 'none') END AS change
FROM spine
INNER JOIN steps ON spine.nth = steps.nth
INNER JOIN
    kpi_account_applications AS account_applications
    ON spine.account_application_no = account_applications.account_application_no
LEFT JOIN used ON spine.nth = used.nth AND spine.account_application_no = used.account_application_no
LEFT JOIN subscribed ON spine.nth = subscribed.nth AND spine.account_application_no = subscribed.account_application_no
LEFT JOIN
    account_rows
    ON spine.nth = account_rows.nth AND spine.account_application_no = account_rows.account_application_no
LEFT JOIN
    account_users
    ON spine.nth = account_users.nth AND spine.account_application_no = account_users.account_application_no
LEFT JOIN states ON spine.nth = states.nth AND spine.account_application_no = states.account_application_no
LEFT JOIN changes ON spine.nth = changes.nth AND spine.account_application_no = changes.account_application_no
LEFT JOIN risks ON spine.nth = risks.nth AND spine.account_application_no = risks.account_application_no
