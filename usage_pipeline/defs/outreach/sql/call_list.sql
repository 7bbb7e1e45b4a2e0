-- grain: a subscribed account that there is a reason to call, with its reasons in words; a calm renewal is none
WITH ordered AS (
    SELECT
        *,
        list_position(
            [
                'notice received', 'account churn risk', 'usage drop', 'inactive', 'champion silent',
                'usage down', 'churn risk', 'low-usage risk', 'never adopted', 'low health', 'one-person dependence',
                'upcoming renewal'
            ],
            call_reason
        ) AS kind_order,
        -- the first clause says what happened; the rest stands on the account's own page
        split_part(reason, '; ', 1) AS short_text
    FROM mart.call_reasons
    -- a renewal without another sign stands among the renewals
    QUALIFY bool_or(call_reason != 'upcoming renewal') OVER (PARTITION BY account_id)
),

-- of an application the strongest reason alone is told: one that is silent has also dropped
strongest AS (
    SELECT *
    FROM ordered
    -- the date of a renewal has a column of its own
    WHERE call_reason != 'upcoming renewal'
    QUALIFY row_number() OVER (PARTITION BY account_id, application_key ORDER BY urgency_rank, kind_order) = 1
),

by_kind AS (
    SELECT
        account_id,
        call_reason,
        min(urgency_rank) AS urgency_rank,
        min(kind_order) AS kind_order,
        count(*) AS applications,
        min(application) = 'all applications' AS is_of_account,
        CASE
            WHEN count(*) > 1
                THEN
                    string_agg(
                        coalesce($words__application[application], application), ', '
                        ORDER BY annual_value DESC NULLS LAST, application
                    )
            WHEN min(application) = 'all applications' THEN min(short_text)
            ELSE min(application) || ' (' || min(short_text) || ')'
        END AS what
    FROM strongest
    GROUP BY account_id, call_reason
),

in_order AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY account_id ORDER BY urgency_rank, kind_order) AS nth,
        count(*) OVER (PARTITION BY account_id) AS kinds
    FROM by_kind
),

as_text AS (
    SELECT
        account_id,
        min(call_reason) FILTER (WHERE nth = 1) AS call_reason,
        min(what) FILTER (WHERE nth = 1)
        || CASE WHEN any_value(kinds) > 1 THEN format($text__reason__more, any_value(kinds) - 1) ELSE '' END
            AS reason_in_short,
        string_agg(
            CASE
                WHEN applications = 1 AND is_of_account THEN what ELSE $words__call_reason[call_reason] || ': ' || what
            END, '; ' ORDER BY nth
        ) FILTER (WHERE nth <= 3)
        || CASE WHEN any_value(kinds) > 3 THEN format($text__reason__and_more, any_value(kinds) - 3) ELSE '' END
            AS reason
    FROM in_order
    GROUP BY account_id
),

by_account AS (
    SELECT
        ordered.account_id,
        min(ordered.urgency_rank) AS urgency_rank,
        arg_min(ordered.urgency, ordered.urgency_rank) AS urgency,
        any_value(as_text.reason) AS reason,
        any_value(as_text.call_reason) AS call_reason,
        any_value(as_text.reason_in_short) AS reason_in_short,
        coalesce(
            string_agg(DISTINCT ordered.call_reason, ', ' ORDER BY ordered.call_reason)
            FILTER (WHERE ordered.news = 'new this week'),
            ''
        ) AS new_reasons
    FROM ordered
    INNER JOIN as_text ON ordered.account_id = as_text.account_id
    GROUP BY ordered.account_id
),

-- what the reasons of the account's own priority are about: an application counts once, for however many of them
of_applications AS (
    SELECT
        owned.account_id,
        count(*) AS applications,
        sum(owned.annual_value) AS annual_value
    FROM core.account_application_states AS owned
    INNER JOIN by_account ON owned.account_id = by_account.account_id
    WHERE
        owned.subscription_state IN ('active subscription', 'notice received')
        AND EXISTS (
            SELECT 1
            FROM mart.call_reasons AS reasons
            WHERE
                reasons.account_id = owned.account_id
                AND reasons.urgency_rank = by_account.urgency_rank
                AND reasons.call_reason != 'one-person dependence'
                AND (reasons.application_key = owned.application OR reasons.application_key = 'all')
        )
        -- that it renews puts nothing at risk by itself
        AND EXISTS (
            SELECT 1
            FROM mart.call_reasons AS reasons
            WHERE
                reasons.account_id = owned.account_id
                AND reasons.call_reason NOT IN ('one-person dependence', 'upcoming renewal')
                AND (reasons.application_key = owned.application OR reasons.application_key = 'all')
        )
    GROUP BY owned.account_id
),

-- subscriptions about the whole account are at risk where all of its applications are
at_risk AS (
    SELECT
        of_applications.account_id,
        of_applications.applications,
        CASE
            WHEN of_applications.applications = accounts.applications_owned AND subscriptions.annual_value IS NOT NULL
                THEN round(subscriptions.annual_value + coalesce(of_applications.annual_value, 0), 2)
            ELSE round(of_applications.annual_value, 2)
        END AS arr_at_risk,
        -- counts twice on the day of the renewal, once from the end of the horizon on
        2 - least(coalesce(accounts.days_to_renewal, $renewal_horizon_days), $renewal_horizon_days)
        / $renewal_horizon_days AS nearness
    FROM of_applications
    INNER JOIN mart.accounts_summary AS accounts ON of_applications.account_id = accounts.account_id
    INNER JOIN core.account_subscriptions AS subscriptions ON of_applications.account_id = subscriptions.account_id
)

SELECT
    row_number() OVER (
        ORDER BY
            by_account.urgency_rank,
            at_risk.arr_at_risk * at_risk.nearness DESC NULLS LAST,
            accounts.annual_value * at_risk.nearness DESC NULLS LAST,
            at_risk.nearness DESC,
            at_risk.applications DESC,
            accounts.account,
            accounts.account_id
    ) AS rank,
    by_account.urgency,
    by_account.urgency_rank,
    accounts.account_id,
    accounts.account,
    accounts.segment,
    accounts.region,
    accounts.owner,
    by_account.reason,
    CASE WHEN by_account.new_reasons != '' THEN 'new this week' ELSE 'ongoing' END AS news,
    by_account.new_reasons,
    at_risk.applications AS applications_at_risk,
    accounts.applications_owned,
    at_risk.arr_at_risk,
    accounts.annual_value,
    accounts.renewal_date,
    accounts.days_to_renewal,
    accounts.last_used_on,
    health.health,
    coalesce(health.health_color, 'not known') AS health_color,
    health.health_change,
    by_account.call_reason,
    by_account.reason_in_short,
    accounts.usage_trend
FROM by_account
INNER JOIN mart.accounts_summary AS accounts ON by_account.account_id = accounts.account_id
INNER JOIN at_risk ON by_account.account_id = at_risk.account_id
LEFT JOIN mart.account_health AS health
    ON by_account.account_id = health.account_id AND health.application_key = 'all'
ORDER BY rank
