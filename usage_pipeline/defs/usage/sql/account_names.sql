-- grain: an account known to any source, with one label that no other account has
WITH known AS (
    SELECT account_id FROM ref.accounts
    UNION
    SELECT account_id FROM ref.subscriptions
    UNION
    SELECT account_id FROM core.weekly_usage
),

named AS (
    SELECT
        known.account_id,
        coalesce(accounts.account_name, known.account_id) AS account_name,
        accounts.segment,
        accounts.region,
        accounts.country,
        accounts.state,
        accounts.owner,
        accounts.account_id IS NOT NULL AS is_in_reference
    FROM known
    LEFT JOIN ref.accounts AS accounts ON known.account_id = accounts.account_id
),

labelled AS (
    SELECT
        *,
        CASE
            WHEN
                count(*) OVER (PARTITION BY account_name) > 1
                -- a name that ends like another's name with its id
                OR regexp_extract(account_name, ' \(([^()]*)\)$', 1) IN (SELECT account_id FROM known)
                THEN account_name || ' (' || account_id || ')'
            ELSE account_name
        END AS account
    FROM named
)

SELECT
    account_id,
    account,
    coalesce(segment, 'not delivered') AS segment,
    coalesce(region, 'not delivered') AS region,
    country,
    state,
    coalesce(owner, 'no CSM') AS owner,
    is_in_reference,
    CASE WHEN $has_contacts THEN 'contacts' END AS contacts
FROM labelled
