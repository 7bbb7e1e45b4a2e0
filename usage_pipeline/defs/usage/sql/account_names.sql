-- a row: an account known to any source, with one label that no other account has
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
            WHEN count(*) OVER (PARTITION BY account_name) > 1 THEN account_name || ' (' || account_id || ')'
            ELSE account_name
        END AS account
    FROM named
),

-- as Rison quotes a text
quoted AS (
    SELECT
        *,
        '''' || replace(replace(account, '!', '!!'), '''', '!''') || '''' AS value
    FROM labelled
),

-- the account filter of a page, as Superset writes it
filtered AS (
    SELECT
        *,
        '?native_filters=' || url_encode(
            '(NATIVE_FILTER-account:(extraFormData:(filters:!((col:account,op:IN,val:!(' || value
            || ')))),filterState:(value:!(' || value || ')),id:NATIVE_FILTER-account,ownState:()))'
        ) AS account_filter
    FROM quoted
)

SELECT
    account_id,
    account,
    coalesce(segment, 'not delivered') AS segment,
    coalesce(region, 'not delivered') AS region,
    country,
    state,
    coalesce(owner, 'no owner') AS owner,
    is_in_reference,
    '<a href="/superset/dashboard/account/' || account_filter || '">open</a>' AS account_page,
    CASE
        WHEN $has_contacts THEN '<a href="/superset/dashboard/contacts/' || account_filter || '">contacts</a>'
    END AS contacts
FROM filtered
